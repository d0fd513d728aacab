"""Which runs a study plans, before anything is started."""

from __future__ import annotations

from PIL import Image

import roadmap
from tests.helpers.command import run_here
from tests.helpers.images import make_folder
from tests.helpers.records import begin


def test_a_run_that_began_with_other_files_is_named(tmp_path):
    """One more image makes another run, which would start anew without a word."""
    folder, out = make_folder(tmp_path / "d", images=20), tmp_path / "runs"
    settings = {"recipe.batch_size": 32, "recipe.image_size": 16}
    (planned,) = roadmap.plan(data=folder, steps="pico", seeds=1, out=out, settings=settings).runs
    began = begin(planned.run, out, epochs=3, data_path=str(folder))
    command = ["run", "--dry-run", "--data", folder, "--steps", "pico", "--out", out]
    command += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    assert run_here(*command).err == ""
    Image.new("RGB", (9, 9)).save(folder / "train" / "bee" / "new.png")
    expected = f"pico/pico-s0 is a new run: {began.name} at epoch 3 used other files of d\n"
    assert run_here(*command).err == expected
    other = make_folder(tmp_path / "other" / "d", images=20)  # another data set of that name
    assert run_here(*(other if word == folder else word for word in command)).err == ""
    (began / "manifest.json").write_text("{")
    assert run_here(*command).err == ""
    assert run_here(*command, "--set", "recipe.epochs=7").err == ""
