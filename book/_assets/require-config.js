// Loaded between require.js and the widget manager on every page that shows a widget.
// It points every module that a widget may ask for at this book's own folder, so that no page needs a network.
(() => {
  const here = new URL("offline/", document.currentScript.src).href;
  window.requirejs.config({
    paths: {
      anywidget: `${here}anywidget`,
      "@jupyter-widgets": `${here.slice(0, -1)}`,
      "@jupyter-widgets/html-manager/dist": `${here.slice(0, -1)}`,
    },
  });

  // The widget manager calls the queue of MathJax 2; this book has MathJax 3, which typesets by promise.
  const typeset = (element) => window.MathJax?.typesetPromise?.([element]);
  window.MathJax = window.MathJax ?? {};
  window.MathJax.Hub ??= { Queue: ([, , element]) => typeset(element) };

  // Without this, Font Awesome watches every change that a widget makes to the page.
  window.FontAwesomeConfig = { ...window.FontAwesomeConfig, observeMutations: false };
})();
