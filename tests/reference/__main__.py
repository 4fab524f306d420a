"""Write the pages of ``docs/reference``."""

from tests.reference import pages

for name in pages.PAGES:
    (pages.FOLDER / name).write_text(pages.write(name))
    print(pages.FOLDER.relative_to(pages.FOLDER.parents[1]) / name)
