"""Reports of runs: reads run folders, and makes tables, plots and pages of them. Nothing here imports torch.

    records.py          reads the files of a run: `Record`
    groups.py           runs that differ only in their seed: `Group`
    labels.py           what differs between groups, in few words
    statistics.py       mean, standard deviation, t-interval
    units.py            writes a metric with its unit: `Unit`
    tables.py           a table for a terminal, a notebook, Markdown and CSV: `Table`
    comparisons.py      differences between two groups, paired by seed: `Difference`
    charts.py           what charts show: curves, lottery tickets by density, reliability, confusion matrices
    tickets.py          whether lottery tickets of two seeds keep the same weights
    run_tables.py       tables that any report has: overview, results, settings that differ, mistakes, all runs
    page_charts.py      charts as plain data for a page: `Chart`
    page.py             one HTML file with these tables and charts: `Page`
    rendering.py        renders the files in ``templates``

The page's script, ``templates/page.js``, draws the charts with plotly. Colours and sizes are in ``style.css`` there.

A study describes its own tables and figures in its YAML:

    specification.py    their form: `TableSpec`, `FigureSpec`
    check.py            makes specifications from the YAML, and refuses those that could not be built
    results.py          the results of the study's runs, by entry and variables: `Results`
    table_builder.py    builds a table from its specification and the results
    figure_builder.py   builds a figure from its specification and the results

The commands that write them are `distill_lightning.cli.report` and `distill_lightning.cli.study`.
"""
