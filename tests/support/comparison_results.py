"""Results of an experiment that nobody ran."""

from vdm.comparison.results import Result, arm_digest


def make_result(experiment, arm, seed, bits, **changes):
    """A result with so many right clips."""
    data = "test-iid/1 object"
    share = 100 * bits.count("1") / len(bits)

    def score(value, **more):
        return {"value": value, "protocol": "p/r1", "n_real": 0, "n_gen": len(bits), **more}

    return Result(
        arm=arm,
        seed=seed,
        digest=arm_digest(experiment, experiment.arm(arm), seed),
        machine={"processor": "p", "device": None, "cores": 2, "torch": "2", "commit": "c"},
        training=[
            {
                "stage": arm,
                "configs": ["tiny.yaml"],
                "forward_flops": 4000,
                "backward_flops": 8000,
                "batch_size": 4,
                "num_parameters": 123456,
                "steps": 50,
                "flops": 600000,
                "seconds": 10.0 + seed,
                "peak_bytes": 5 * 10**8,
                "losses": [[25, 0.7], [50, 0.5]],
            }
        ],
        scores={
            data: {
                "generated": {
                    "caption-accuracy/whole": score(share),
                    "caption-accuracy/motion": score(75.0),
                    "fmd/flow": score(0.4, floor=0.1),
                },
                "real": {"caption-accuracy/whole": score(100.0)},
            }
        },
        outcomes={data: bits},
        sampling={"seconds": 0.5, "peak_bytes": 10**7},
        sweep=[
            {
                "argument": "steps",
                "value": value,
                "seconds": value / 8,
                "scores": {data: {"caption-accuracy/whole": share / value}},
            }
            for value in (2, 4)
        ],
        **changes,
    )
