"""The look of an audit's page: readable on a phone, light or dark as the reader's system is."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fcfcfb; --ink: #1d1f21; --quiet: #55595e; --rule: #d5d7d9; --card: #f1f3f4; --accent: #0a5a87;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15171a; --ink: #e9e9e6; --quiet: #b3b8bd; --rule: #3a3f45; --card: #1f2226; --accent: #7cc5f0;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; border-top: 1px solid var(--rule); padding-top: 1.2rem; }
h3 { font-size: 1rem; margin: 0 0 .2rem; }
p { margin: .4rem 0; max-width: 44rem; }
.quiet { color: var(--quiet); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .8rem; margin: 1rem 0; }
.card { background: var(--card); border-radius: .5rem; padding: .8rem 1rem; }
.card .number { font-size: 1.6rem; font-variant-numeric: tabular-nums; color: var(--accent); margin: 0; }
.card p { margin: .1rem 0; font-size: .92rem; }
.case { margin: 0 0 1.8rem; }
.pictures { display: grid; grid-template-columns: repeat(5, 1fr); gap: .6rem; margin: .5rem 0; }
.pictures figure { margin: 0; }
.pictures img { width: 100%; height: auto; display: block; border-radius: .3rem; background: var(--card); }
figcaption { font-size: .85rem; color: var(--quiet); padding-top: .2rem; }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
caption { text-align: left; color: var(--quiet); padding-bottom: .4rem; font-size: .92rem; }
th, td { text-align: left; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
td.number { white-space: nowrap; }
td.long { overflow-wrap: anywhere; min-width: 12rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; margin: 1rem 0; }
.charts figure { margin: 0; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--quiet); font-size: 11px; }
svg .axis { stroke: var(--rule); stroke-width: 1; }
svg .line { stroke: var(--accent); stroke-width: 2; fill: none; }
svg .point { fill: var(--accent); }
svg .reach { stroke: var(--accent); stroke-width: 1.5; opacity: .55; }
summary { cursor: pointer; }
@media (max-width: 40rem) {
  .pictures { grid-template-columns: repeat(2, 1fr); }
  td.long:nth-child(n+3) { min-width: 24rem; }
  h1 { font-size: 1.4rem; }
}
"""
