"""Adds files that lie outside ``docs/`` to the site: the READMEs and YAML files of ``configs/``, and the root's pages.

Links in Markdown are those of the repository, so that they also work where the repository is read. This file changes
them to the places that the pages have in the site.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent
AT_THE_ROOT = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff", "LICENSE")
LINK = re.compile(r"(\]\()([^)\s]+)(\))")


def outside() -> list[str]:
    """The paths of the files that are added, relative to the root."""
    configs = [path for path in sorted((ROOT / "configs").rglob("*")) if path.suffix in (".md", ".yaml", ".svg")]
    return [*AT_THE_ROOT, *(path.relative_to(ROOT).as_posix() for path in configs)]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files, under their own paths. Called by MkDocs."""
    for path in outside():
        files.append(File(path, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Changes the links of a page from the repository's paths to the site's. Called by MkDocs for each page."""
    place = page.file.src_uri
    is_outside = place in outside()
    folder = posixpath.dirname(place if is_outside else f"docs/{place}")

    def changed(found: re.Match[str]) -> str:
        target, mark, anchor = found[2].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return found[0]
        in_repository = posixpath.normpath(posixpath.join(folder, target))
        in_site = in_repository.removeprefix("docs/")
        return f"{found[1]}{posixpath.relpath(in_site, posixpath.dirname(place) or '.')}{mark}{anchor}{found[3]}"

    return LINK.sub(changed, markdown).replace(" ± ", "\u00a0±\u00a0")  # a mean and its deviation stay on one line
