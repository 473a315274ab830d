"""The plugin: heads, their coupling, masked errors and losses, as nodes of hippynn's graph."""
