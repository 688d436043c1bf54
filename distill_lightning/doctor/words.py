"""What a verdict says in words: the evidence with its threshold, and what to change."""

import math

from distill_lightning.doctor.curves import Curves
from distill_lightning.doctor.measures import Measures

MANY = 10.0
"""A loss of more times ln K is not written in percent."""
TITLES = {
    "diverged": "the training diverged",
    "lr_too_high": "the learning rate is too high",
    "lr_too_low": "the learning rate is too low, or the training too short",
    "batch_too_small": "the batch is too small for this learning rate",
    "overfits": "the network overfits",
    "underfits": "the network is too small for the data, or its rate a little off",
    "no_learning": "the network does not learn",
    "eval_mismatch": "the evaluation does not match the training",
    "wrong_labels": "a part of the training labels is wrong",
    "lr_dropped_early": "the learning rate was lowered too early",
    "healthy": "nothing wrong was found",
    "unsure": "the curves do not tell",
}
"""Every verdict, and what it means."""


def evidence(rule: str, m: Measures, curves: Curves) -> str:
    """The sentence with the statistic of a rule and its threshold. ``rule`` is the name of one in `rules`."""
    share = f"{m.end:.0%} of ln K" if m.end < MANY else f"{m.end:.2g} times ln K"
    nats = f"{m.end * math.log(1 / m.chance):.3g} nats, {share}" if m.chance == m.chance else "?"
    ends, batch = f"the loss ends at {nats}", f"at a batch of {curves.batch_size}"
    nothing = f"{ends} (above 97 %, a network knows nothing)"
    both = f"training accuracy {_percent(m.train)}, validation accuracy {_percent(m.val)}"
    rose = f"it rose to {m.spike:.3g} times its start at step {m.spike_at:.0f} (healthy runs stay below 1.12)"
    fell = f"fell by {m.slope:.0%} in the last fifth"
    half = f"half of its fall took {m.half_at:.0%} of the steps (threshold 8.5 %)"
    sentences = {
        "not finite": [f"the loss is not a number from step {m.broken_at:.0f} on"],
        "ends above": [ends, "the threshold is 125 %, and a network that knows nothing has 100 %"],
        "few steps": [f"the training has {m.steps:.0f} steps (threshold 20)", ends],
        "collapsed, small batch": [f"{nothing}, {batch}", f"before, it was at {m.low:.0%}", rose],
        "collapsed": [nothing, f"before, it was at {m.low:.0%}", rose],
        "hardly falls": [
            f"{ends}, but it falls: by {m.fallen:.1f} standard errors (threshold 3.5)",
            f"training accuracy {_percent(m.train)}, where chance is {m.chance:.1%}",
        ],
        "flat": [nothing, f"between first and last tenth it fell by {m.fallen:.1f} standard errors (threshold 3.5)"],
        "validation at chance": [
            f"{both}, where chance is {m.chance:.1%}",
            f"the validation loss is {m.val_loss:.0%} of ln K (threshold 110 %)",
        ],
        "validation never learned": [
            f"the lowest validation loss is {m.val_least:.0%} of ln K (threshold 105 %), the training loss {m.end:.0%}"
        ],
        "validation above training": [
            both,
            f"validation is better by {m.below:.1%} of all pictures, and its loss by {m.end - m.val_loss:.1%} of ln K "
            "(threshold 7 %, or 3 % and 3.5 %)",
        ],
        "validation falls again": [
            f"validation accuracy fell by {m.val_drop:.1%} of all pictures from its best (threshold 5 %), while "
            f"training went to {_percent(m.train)}"
        ],
        "rose, small batch": [f"{ends}, {batch}", rose],
        "rose": [ends, rose],
        "falls with its rate": [
            f"{half}, and then it fell {m.gain:.1f} times as fast as before for the same rate (threshold 1.8)", ends,
        ],
        "slowed by its rate": [
            f"{ends}, and {half}",
            f"at the end it fell {m.gain:.1f} times as fast as before for the same rate (threshold 1.4)",
        ],
        "rises": [ends, f"in its last fifth it is {-m.slope:.0%} higher than in the fifth before (threshold 10 %)"],
        "wide, small batch": [
            ends, f"single steps {batch} are {m.width:.0%} of the mean loss wide (threshold 45 %)",
        ],
        "gap": [
            both,
            f"the validation loss is {m.val_rise:.0%} above its best, of step {m.val_low_at:.0f} (thresholds: "
            "8 % apart, and 97 % in training or 10 % above the best loss)",
        ],
        "wide gap": [f"{both} (threshold: a difference of {max(0.12, 0.15 * m.train):.1%})"],
        "dropped": [f"{1 - m.at_top:.0%} of the steps had a tenth of the largest rate or less (threshold 70 %)", ends],
        "still falls": [f"the loss {fell} (threshold 5 %), and {half}"],
        "little fall": [f"{ends} (threshold 62 %), and {half}"],
        "agree and flat": [both, f"{ends} and {fell} (threshold 4.5 %)"],
        "nothing found": [ends, "no rule for an illness holds"],
    }  # fmt: skip
    text = "; ".join(sentences[rule])
    return f"{text[:1].upper()}{text[1:]}."


def advice(verdict: str, curves: Curves) -> str:
    """What to change, most useful first: options of this program with values, where the curves say the present ones."""
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
            lr(0.1, "a tenth of the rate"), option("--trainer.gradient_clip_val 1", "gradients clipped at norm 1"),
            option("--trainer.precision 32", "full precision"),
        ],
        "lr_too_high": [
            lr(1 / 3, "a third of the rate"), "a warm-up over the first twentieth of the steps",
            "never longer training",
        ],
        "lr_too_low": [lr(3, "three times the rate"), f"if that is worse, {longer}"],
        "batch_too_small": [
            lr((batch or 8) / 32, "the rate times batch / 32"),
            option(f"--trainer.accumulate_grad_batches {accumulate}", f"gradients of {accumulate} batches added up"),
        ],
        "overfits": [
            "more pictures, or augmentation",
            option(f"--model.optimizer.weight_decay {5 * stronger:.2g}", "more weight decay"),
            "dropout, or a teacher (KD, DLB)", option("checkpoints/best.ckpt", "the weights of the best evaluation"),
        ],
        "underfits": [
            "a wider or deeper network", "less weight decay, dropout and augmentation",
            lr(3, "three times the rate"),
        ],
        "no_learning": [
            "other initial weights (He's for ReLU, Glorot's for tanh)", "ReLU in place of sigmoid", "batch norm",
            "look whether the labels belong to the pictures",
        ],
        "eval_mismatch": [
            "the same preprocessing of training and validation pictures",
            "batch norm with momentum 0.1 and a batch of 16 or more",
            option("distill test RUN --reestimate_batch_norm 1000", "its statistics estimated again before the test"),
            option("--trainer.callbacks+ EMA, or --model.schedule Cosine", "averaged weights, or a falling rate"),
        ],
        "wrong_labels": [
            "look at the training pictures with the largest loss",
            option("--model.label_smoothing 0.1", "label smoothing of 0.1"),
            option("fewer epochs, or checkpoints/best.ckpt", "fewer epochs, or the weights of the best evaluation"),
        ],
        "lr_dropped_early": ["later milestones", option("--model.schedule Cosine", "a rate that falls as a cosine")],
        "healthy": [],
        "unsure": ["train longer, or log more often", "compare with a run that differs in the rate alone"],
    }  # fmt: skip
    return "; ".join(texts[verdict])


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and value > 0 and math.isfinite(value) else None


def _percent(share: float) -> str:
    return f"{share:.1%}" if share == share else "unknown"
