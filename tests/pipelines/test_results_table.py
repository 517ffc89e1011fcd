"""The table says what the scores say."""

import pytest

from vdm.pipelines.results_table import results_table


def score(name: str, value: float, n: int = 512) -> dict:
    return {
        "value": value,
        "protocol": f"{name}/16f@8/64/native/d/n{n}/r1",
        "n_real": 0,
        "n_gen": n,
        "interval": [value - 1, value + 0.5],
    }


def evaluation() -> dict:
    whole, psnr = "caption-accuracy/whole", "reconstruction/psnr"
    return {
        "scores": {
            "test-iid/1 object": {
                "generated": {
                    whole: score(whole, 95.25),
                    "fmd/flow": {**score("fmd/flow", 1.25), "floor": 0.75},
                    "fd/transnet": {**score("fd/transnet@a313d0b3", 2.5), "floor": 0.5},
                },
                "real": {whole: score(whole, 100.0)},
                "reconstructed": {psnr: score(psnr, 36.12)},
                "static copy": {whole: score(whole, 7.0)},
            },
            "test-comp/1 object": {
                "generated": {
                    whole: score(whole, 88.0),
                    "fmd/flow": {"not_enough": "9 clips", "protocol": "p", "n_real": 9, "n_gen": 9},
                }
            },
        },
        "gaps": {"test-iid/1 object": {"points": 7.25, "interval": [4.0, 10.5]}},
    }


def test_every_score_stands_in_its_column():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in results_table(evaluation()).splitlines()
        if line.startswith("|")
    ]
    assert rows[0] == ["", "test-iid/1 object", "test-comp/1 object"]
    table = {row[0]: row[1:] for row in rows[2:]}
    assert table == {
        "**whole caption, the model**": ["**95.2 % (94.2 to 95.8)**", "**88.0 % (87.0 to 88.5)**"],
        "whole caption, ceiling: real clips": ["100.0 % (99.0 to 100.5)", ""],
        "whole caption, must fail: static copy": ["7 % (6 to 7.5)", ""],
        "VAE reconstruction, PSNR": ["36.1 dB (35.1 to 36.6)", ""],
        "motion distance fmd/flow": ["1.25 (0.25 to 1.75); floor 0.75", "not enough"],
        "distance of features fd/transnet": ["2.5 (1.5 to 3); floor 0.5", ""],
        "whole captions, lost on unseen pairs": ["", "7.25 points (4 to 10.5)"],
    }


def test_the_counts_are_said():
    assert results_table(evaluation()).endswith("n = 512 clips per column; 95 % intervals.")


def test_no_scores_make_no_table():
    with pytest.raises(ValueError, match="without scores"):
        results_table({"scores": {}})
