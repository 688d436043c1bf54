"""What to change, for each verdict."""

import math

from distill_lightning.doctor.curves import Curves

WARM_UP = "a warm-up over the first twentieth of the steps"


def advice(verdict: str, curves: Curves, knows_nothing: bool = False) -> str:
    """What to change, most useful first: options of this program with values, where the curves say the present ones.

    Args:
        verdict: a key of `words.TITLES`.
        curves: the run.
        knows_nothing: whether the network has lost all that it knew, so that a small change is not enough.
    """
    settings = curves.settings
    ours = bool(settings)
    finite = curves.rate.finite().values
    rate = _number(settings.get("model.optimizer.lr")) or (float(finite.max()) if len(finite) else None)
    epochs = _number(settings.get("trainer.max_epochs"))
    batch = curves.batch_size

    def lr(factor: float, words: str) -> str:
        if rate is None:
            return words
        return f"--model.optimizer.lr {rate * factor:.2g}" if ours else f"{words}: {rate * factor:.2g}"

    def option(text: str, words: str) -> str:
        return text if ours else words

    accumulate = max(2, 32 // batch) if batch else 8
    longer = f"--trainer.max_epochs {2 * epochs:.0f}" if epochs and ours else "twice the epochs"
    stronger = _number(settings.get("model.optimizer.weight_decay")) or 1e-4
    texts = {
        "diverged": [
            lr(0.1, "a tenth of the rate"), WARM_UP,
            option("--trainer.gradient_clip_val 1", "gradients clipped at norm 1"),
            option("--trainer.precision 32", "full precision"),
        ],
        "lr_too_high": [
            lr(0.1, "a tenth of the rate") if knows_nothing else lr(1 / 3, "a third of the rate"), WARM_UP,
            "training longer at this rate does not help",
        ],
        "lr_too_low": [lr(3, "three times the rate"), f"if that is worse, {longer}"],
        "batch_too_small": [
            lr((batch or 8) / 32, "the rate times batch / 32"),
            option(
                f"or --trainer.accumulate_grad_batches {accumulate}",
                f"or, at the present rate, gradients averaged over {accumulate} batches",
            ),
        ],
        "overfits": [
            "more pictures, or augmentation",
            option(f"--model.optimizer.weight_decay {5 * stronger:.2g}", "more weight decay"),
            "dropout, or knowledge distillation",
            option("checkpoints/best.ckpt", "the weights of the best validation"),
        ],
        "underfits": [
            "a wider or deeper network", "less weight decay, dropout and augmentation",
            lr(3, "three times the rate"),
        ],
        "no_learning": [
            "other initial weights (He's for ReLU, Glorot's for tanh)", "ReLU in place of sigmoid", "batch norm",
            "ten times the rate, and a tenth of it", "check whether the labels belong to the pictures",
        ],
        "eval_mismatch": [
            "the same preprocessing of training and validation pictures",
            "batch norm with momentum 0.1 and a batch of 16 or more",
            option(
                "distill test RUN --reestimate_batch_norm 1000",
                "batch norm statistics estimated again before the test",
            ),
            option(
                "--trainer.callbacks+ EMA, or --model.schedule Cosine", "averaged weights (EMA), or a rate that falls"
            ),
        ],
        "wrong_labels": [
            "look at the training pictures with the largest loss",
            option("--model.label_smoothing 0.1", "label smoothing of 0.1"),
            option(
                "checkpoints/best.ckpt, if validation gets worse",
                "the weights of the best validation, if it gets worse",
            ),
        ],
        "lr_dropped_early": [
            "lower the rate first after half of the steps", option("--model.schedule Cosine", "a cosine schedule"),
        ],
        "healthy": [],
        "unsure": ["compare with a run at three times the rate, and with one at a third of it"],
    }  # fmt: skip
    return "; ".join(texts[verdict])


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and value > 0 and math.isfinite(value) else None
