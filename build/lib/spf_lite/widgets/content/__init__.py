"""What widgets show: pictures, maps and series, encoded for the page."""
