"""Write scikit-learn's 178 analysed wines into a folder, as a CSV file."""

import pathlib
import sys

from sklearn.datasets import load_wine

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
wines = load_wine(as_frame=True)
frame = wines.frame.rename(columns={"target": "cultivar"})
frame["cultivar"] = wines.target_names[frame["cultivar"]]
frame.to_csv(folder / "wine.csv", index=False)
