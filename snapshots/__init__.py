"""DVC: immutable, content-addressed dataset versions. The only room that imports dvc."""
