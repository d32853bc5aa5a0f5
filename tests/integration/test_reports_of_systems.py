"""What each system's report says: its own numbers, and the published ones beside them."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from deepobs.analyzer.baselines import load_baselines
from pytorch_port.figures.published import figure3_curve
from trainrig.report.write import write_report


def sections(path):
    """Return the page's sections as {heading: text without tags}."""
    text = path.read_text(encoding="utf-8").partition("<script")[0]
    parts = re.split(r"<h2>(.*?)</h2>", text)
    bare = [re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", part)) for part in parts]
    return dict(zip(bare[1::2], bare[2::2], strict=True)) | {"": bare[0]}


def icl_run(path, *, weight_decay, accuracy, source="files"):
    (path / "logs").mkdir(parents=True)
    generator = {"n_rare_classes": 80, "n_common_classes": 10, "n_holdout_classes": 10}
    config = {
        "data": {"generator_config": generator},
        "optimizer": {"weight_decay": weight_decay},
        "images": {"image_source": source},
    }
    (path / "config.json").write_text(json.dumps(config))
    (path / "environment.json").write_text("{}")
    metrics = {"no_support": {"accuracy_query": accuracy}, "holdout": {"accuracy_closed": 0.5}}
    status = {"status": "complete", "step": 75_000, "metrics": metrics}
    (path / "status.json").write_text(json.dumps(status))


def test_icl_sets_undecayed_runs_beside_figure_3_at_their_step(tmp_path):
    icl_run(tmp_path / "s/wd0", weight_decay=0.0, accuracy=0.8125)
    icl_run(tmp_path / "s/wd1", weight_decay=0.1, accuracy=0.3)
    found = sections(write_report(tmp_path / "s"))
    rows = found["Beside published values"]
    there = 100 * figure3_curve("in_weights", 100).at(75_000)
    assert f"wd0 100 in-weights accuracy 75000 81.25 {there:g}" in rows
    assert "wd1" not in rows
    assert "glyphs" not in found[""]
    assert "optimizer.weight_decay" in found["Configuration"]


def test_icl_says_when_images_were_glyphs(tmp_path):
    icl_run(tmp_path / "s/a", weight_decay=0.0, accuracy=0.5, source="synthetic")
    assert (
        "Images are procedural glyphs, not Omniglot" in sections(write_report(tmp_path / "s"))[""]
    )


def test_deepobs_results_stand_over_the_published_baselines(tmp_path):
    folder = tmp_path / "quadratic_deep/Adam/setting"
    folder.mkdir(parents=True)
    for seed, last in ((1, 90.0), (2, 92.0)):
        curves = {f"{split}_losses": [100.0, last] for split in ("train", "test")}
        content = {"testproblem": "quadratic_deep", "optimizer": "Adam", "batch_size": 128}
        content |= {"num_epochs": 1, "random_seed": seed, "hyperparams": {}, "learning_rate": 0.01}
        (folder / f"random_seed__{seed}__x.json").write_text(json.dumps(content | curves))
    page = write_report(tmp_path)
    rows = sections(page)["Beside published values"]
    assert "quadratic_deep Adam run test losses 2 1 91 " in rows  # seeds, epochs, final
    assert re.findall(r"quadratic_deep (\w+) published test losses 10 100 ([\d.]+)", rows) == [
        ("SGD", "87.4"),
        ("Momentum", "87.05"),
        ("Adam", "87.11"),
    ]
    data = json.loads(page.read_text().partition('id="charts">')[2].partition("</script>")[0])
    drawn = {series["name"]: series for series in data[0][0]["series"]}
    assert drawn["Adam lr 0.01 (mean of 2)"]["y"] == [100.0, 91.0]
    mean = load_baselines().band("quadratic_deep", "Adam", "test_losses")[0]
    assert drawn["Adam, published"]["y"] == pytest.approx(list(mean), rel=1e-4)


def test_a_reconstruction_shows_scores_and_pictures(tmp_path):
    from ptycho_torch.train.figures import draw_single

    folder = tmp_path / "rec"
    folder.mkdir()
    np.savez(folder / "reconstruction.npz", object=np.ones((4, 4), complex))
    draw_single(np.eye(8), folder / "reconstructed_phase.png", "phase")
    (folder / "metrics.json").write_text(json.dumps({"ssim_amp": 0.987654, "mae_amp": 0.01}))
    (folder / "logs").mkdir()
    (folder / "logs/metrics.csv").write_text("epoch,train_loss,val_loss\n1,3.0,4.0\n2,2.0,2.5\n")
    page = write_report(folder / "reconstruction.npz")
    assert page == folder / "report.html"
    found = sections(page)
    assert "amplitude SSIM 0.988" in found[""]
    assert "SSIM, amplitude 0.9877" in found[""]
    assert page.read_text().count("data:image/png") == 1
    data = json.loads(page.read_text().partition('id="charts">')[2].partition("</script>")[0])
    assert [chart["series"][0]["y"] for chart in data[0]] == [[3.0, 2.0], [4.0, 2.5]]
