"""Reports of runs: what is read from run folders, tables, pictures, pages. Nothing here imports torch.

    records.py          a run as its files have it: `Record`
    groups.py           runs that differ only in their seed: `Group`
    statistics.py       mean, standard deviation, t-interval
    units.py            how a metric is written: `Unit`
    tables.py           a table as Markdown, CSV and HTML: `Table`
    run_tables.py       tables that any report has: results, settings that differ, all runs
    pictures.py         pictures that any report has: curves, lottery tickets by density, reliability
    tickets.py          whether lottery tickets of two seeds keep the same weights
    page.py             all of it as one HTML file

A study describes its own tables and figures in its YAML:

    specification.py    what they may say: `TableSpec`, `FigureSpec`
    check.py            makes them from the YAML and refuses what could not be built
    results.py          the results of the study's runs, by entry and variables: `Results`
    table_builder.py    a table from its specification and the results
    figure_builder.py   a figure likewise

The commands that write them are `distill_lightning.cli.report` and `distill_lightning.cli.study`.
"""
