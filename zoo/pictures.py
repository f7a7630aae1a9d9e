"""Photographs that Debian packages ship, made small: stamps cut out of their background, and places.

    python devtools/pack.py zoo.pictures --out DIR

downloads the packages with apt-get (no rights needed, nothing is installed), unpacks them with dpkg below DIR and writes
DIR/pictures.safetensors: uint8 tensors `stamp.NAME` (4, 64, 64), RGB and coverage, and `place.NAME` (3, 64, 96).
The pictures are not part of this project; the cards name their packages and licences.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file

PACKAGES = ("plasma-workspace-wallpapers", "tuxpaint-stamps-default", "mate-backgrounds")
STAMPS_FOLDER = "usr/share/tuxpaint/stamps"
STAMPS = {
    "elephant": "animals/mammals/elephant", "giraffe": "animals/mammals/giraffe",
    "rabbit": "animals/mammals/rabbit_little", "koala": "animals/marsupials/koala",
    "penguin": "animals/birds/penguin", "rooster": "animals/birds/rooster",
    "flamingo": "animals/birds/pink_flamingo", "owl": "animals/birds/owl",
    "parrot": "animals/birds/rainbow-lorikeet", "toucan": "animals/birds/tucan",
    "seahorse": "animals/fish/seahorse", "angelfish": "animals/fish/butterflyfish",
    "frog": "animals/amphibians/frog", "balloon": "vehicles/flight/balloon360",
    "firetruck": "vehicles/emergency/firetruck", "car": "vehicles/auto/beetle",
    "ship": "vehicles/ship/chineseJunk", "bus": "vehicles/masstransit/green_korean_bus",
    "tricycle": "vehicles/cycle/pink_tricycle", "teapot": "household/dishes/teapot",
    "orange": "food/fruit/orange", "strawberry": "food/fruit/Strawberry2", "grapes": "food/fruit/grapes",
    "banana": "food/fruit/banana", "pineapple": "food/fruit/pineapple", "lemon": "food/fruit/lemon",
    "pear": "food/fruit/pear", "apple": "food/fruit/apple_red", "cherries": "food/fruit/Cherry_Stella",
    "broccoli": "food/vegetables/broccoli", "mushroom": "food/vegetables/mushroom",
    "pumpkin": "food/vegetables/pumpkin_small", "tomato": "food/vegetables/tomato", "rose": "plants/flowers/rose",
    "daffodil": "plants/flowers/daffodil", "iris": "plants/flowers/iris", "marigold": "plants/flowers/marigold",
    "gazania": "plants/flowers/red-gazania", "earth": "space/planets/3_earth", "saturn": "space/planets/6_saturn",
    "basketball": "sports/basketball", "football": "sports/soccer",
}  # fmt: skip
PLASMA, MATE = "usr/share/wallpapers/{}/contents/images", "usr/share/backgrounds/mate/nature/{}.jpg"
PLACES = {
    "harbour": PLASMA.format("EveningGlow"), "leaves": PLASMA.format("FallenLeaf"), "sky": PLASMA.format("Kite"),
    "moss": PLASMA.format("OneStandsOut"), "forest": PLASMA.format("Path"), "pier": PLASMA.format("BytheWater"),
    "dusk": PLASMA.format("summer_1am"), "jetty": PLASMA.format("ColdRipple"), "cups": PLASMA.format("ColorfulCups"),
    "beach": PLASMA.format("Volna"), "autumn": PLASMA.format("Autumn"), "mountains": PLASMA.format("Altai"),
    "night": PLASMA.format("DarkestHour"), "castle": PLASMA.format("SafeLanding"), "roof": PLASMA.format("Grey"),
    "dune": MATE.format("Dune"), "garden": MATE.format("Garden"), "meadow": MATE.format("GreenMeadow"),
    "storm": MATE.format("Storm"), "drop": MATE.format("Aqua"), "blinds": MATE.format("Blinds"),
    "petals": MATE.format("FreshFlower"), "ladybird": MATE.format("LadyBird"), "wood": MATE.format("Wood"),
    "seeds": MATE.format("TwoWings"), "sunflower": MATE.format("YellowFlower"), "grass": MATE.format("RainDrops"),
}  # fmt: skip
STAMP_SIDE = 64  # pixels
PLACE_SIZE = (96, 64)  # pixels, width and height
FILE = "pictures.safetensors"

Pictures = dict[str, torch.Tensor]


def main() -> None:
    """Fetch, unpack and shrink."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the packages and the small pictures")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    fetch(args.out)
    save_file(prepare(args.out / "unpacked"), args.out / FILE)


def fetch(folder: Path) -> None:
    """Debian packages, downloaded and unpacked to folder/unpacked."""
    subprocess.run(["apt-get", "download", *PACKAGES], cwd=folder, check=True)  # noqa: S603, S607 - names made here
    for package in sorted(folder.glob("*.deb")):
        subprocess.run(["dpkg", "-x", package.name, "unpacked"], cwd=folder, check=True)  # noqa: S603, S607


def prepare(root: Path) -> Pictures:
    """All pictures below the unpacked packages, as uint8 tensors."""
    stamps = {f"stamp.{name}": stamp(root / STAMPS_FOLDER / f"{path}.png") for name, path in STAMPS.items()}
    return stamps | {f"place.{name}": place(largest(root / path)) for name, path in PLACES.items()}


def largest(path: Path) -> Path:
    """The path itself, or the largest picture of its folder that is wider than high."""
    if path.is_file():
        return path
    wide = [file for file in path.iterdir() if (size := Image.open(file).size)[0] > size[1]]
    return max(wide, key=lambda file: Image.open(file).size)


def stamp(path: Path) -> torch.Tensor:
    """Cropped to what it shows and fitted into a square: (4, 64, 64), RGB and coverage."""
    picture = Image.open(path).convert("RGBA")
    picture = picture.crop(picture.getchannel("A").getbbox())
    return tensor(ImageOps.pad(picture, (STAMP_SIDE, STAMP_SIDE), Image.Resampling.LANCZOS, color=(0, 0, 0, 0)))


def place(path: Path) -> torch.Tensor:
    """Cropped to 3:2 about its middle: (3, 64, 96)."""
    return tensor(ImageOps.fit(Image.open(path).convert("RGB"), PLACE_SIZE, Image.Resampling.LANCZOS))


def tensor(picture: Image.Image) -> torch.Tensor:
    """Bytes of a picture, channels first."""
    return torch.from_numpy(np.array(picture)).movedim(-1, 0).contiguous()


def load_pictures(folder: Path) -> Pictures:
    """The small pictures that `main` wrote to a folder."""
    return load_file(folder / FILE)


if __name__ == "__main__":
    main()
