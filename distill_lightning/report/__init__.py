"""Reports of runs: reads run folders, and makes tables, pictures and pages of them. Nothing here imports torch.

    records.py          reads the files of a run: `Record`
    groups.py           runs that differ only in their seed: `Group`
    statistics.py       mean, standard deviation, t-interval
    units.py            writes a metric with its unit: `Unit`
    tables.py           a table as Markdown, CSV and HTML: `Table`
    run_tables.py       tables that any report has: results, settings that differ, all runs
    pictures.py         pictures that any report has: curves, lottery tickets by density, reliability
    tickets.py          whether lottery tickets of two seeds keep the same weights
    page.py             one HTML file with these tables and pictures

A study describes its own tables and figures in its YAML:

    specification.py    their form: `TableSpec`, `FigureSpec`
    check.py            makes specifications from the YAML, and refuses those that could not be built
    results.py          the results of the study's runs, by entry and variables: `Results`
    table_builder.py    builds a table from its specification and the results
    figure_builder.py   builds a figure from its specification and the results

The commands that write them are `distill_lightning.cli.report` and `distill_lightning.cli.study`.
"""
