"""Write the settings page of the documentation, and the JSON schema of run files.

Both are made from the model of a request; tests compare them whole with what is committed.

    python scripts/make_settings_page.py
"""

from pathlib import Path

from hippynn_mf.files import replace_when_complete
from hippynn_mf.runs.run_file import SCHEMA, schema_text
from hippynn_mf.runs.setting_texts import settings_page

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
BEGIN, END = "<!-- begin settings -->", "<!-- end settings -->"
HEAD = """# Settings

What `hippynn-mf train` and `hippynn-mf campaign` can be asked for: as an option, or as a key of a
run file (`hippynn-mf new my.toml DATA` writes one), whose options override it.
"""


def page_text(before: str) -> str:
    """The page with its block made anew; what stands around it stays."""
    if BEGIN not in before:
        before = f"{HEAD}\n{BEGIN}\n{END}\n"
    head, _, rest = before.partition(BEGIN)
    return f"{head}{BEGIN}\n{settings_page()}{END}{rest.partition(END)[2]}"


def main() -> None:
    """Write both."""
    PAGE.parent.mkdir(exist_ok=True)
    before = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    for path, text in ((PAGE, page_text(before)), (SCHEMA, schema_text())):
        with replace_when_complete(path) as partial:
            partial.write_text(text, encoding="utf-8")
        print(path)  # noqa: T201


if __name__ == "__main__":
    main()
