"""The method: attention, control map, losses, both paths, and PureCC beside it."""
