"""``make score``: the cross-validation (CV) score.

Each training image is predicted by the networks that did not see its car. The masks are written like a submission,
read again, and scored at full size. Member weights and a threshold are used if they raise the CV when each fold uses
those that are best on the other folds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from competition import files, mask_table
from competition.command import Failure, parser, run_command
from competition.data_folder import DataFolder
from competition.deadline import Deadline, add_deadline_argument
from competition.mask_area import limits, require_plausible_in_run
from competition.mask_table import Truth
from competition.photo import Photo
from competition.plural import counted
from competition.run.folder import SCORE_COLUMNS, RunFolder
from competition.run.open import next_hint, require_same_data
from competition.run.records import CV, Gain, ThresholdCurve, ThresholdTuning
from competition.settings.schema import Settings
from folds import ranks
from folds.device import pick_device
from inference.choice import Choice, choose, given_weights, weights_by_name, with_weight
from inference.cv.gains import (
    EQUAL,
    format_weights,
    gain,
    gain_of_choice,
    gains_of_members,
    gains_of_tta,
    print_gains,
)
from inference.cv.mixtures import MemberWeights, Mixture, equal, grid, measured_mixtures
from inference.cv.out_of_fold import Choices, OutOfFold, OutOfFoldJob
from inference.cv.summary import fold_score, spread, threshold_tuning
from inference.cv.tuning import effective, thresholds, tune_threshold, tune_weights
from inference.engine.runtime import resolve_engine
from inference.engine.trial_export import with_able_engine
from inference.members import add_member_arguments, one_at_a_time, open_members
from inference.shards import key_of
from submissions import submission_file

if TYPE_CHECKING:  # a run that is scored already does not need it, and it takes long to import
    import pandas as pd


def score_file(path: Path, data: DataFolder, by_fold: Mapping[int, list[Photo]]) -> "pd.DataFrame":
    """Score a file of out-of-fold masks at full size: a row per image, with the columns of oof_scores.csv."""
    import pandas as pd

    photos = {photo.img: (photo, fold) for fold, photos in by_fold.items() for photo in photos}

    def truth(img: str) -> Truth:
        photo, _ = photos[img]
        return Truth(data.truth_spans(photo), photo.shape)

    rows = [
        (img, photos[img][0].car, photos[img][0].view, photos[img][1], counts.dice, counts.iou)
        for img, counts in mask_table.score(path, photos, truth, advice="run the same command again").items()
    ]
    return pd.DataFrame(rows, columns=SCORE_COLUMNS)


def score_run(
    run: RunFolder, settings: Settings, data: DataFolder, members: Sequence[RunFolder], deadline: Deadline
) -> None:
    """Score a run, alone among all processes, and print the CV and what to do next."""
    with one_at_a_time(run):
        cross_validate(run, settings, data, members, deadline)
    predict, report = (next_hint(target, run, settings, data) for target in ("predict", "report"))
    print(f"{run.cv}  next: {predict}, or {report}")


def cross_validate(
    run: RunFolder, settings: Settings, data: DataFolder, members: Sequence[RunFolder], deadline: Deadline
) -> None:
    """Write oof.csv.gz, oof_scores.csv and cv.json, and print the CV."""
    require_same_data(run, data)
    how = with_able_engine(settings.inference, pick_device(), members)
    threshold, weights = choose(how, members, cv=None)
    used, weights = with_weight(members, weights)
    tried = [equal(len(used)), weights] if given_weights(how, members) else grid(len(used))

    job = OutOfFoldJob(run, how, data, used, deadline)
    key = key_of(
        **job.facts,
        threshold=how.threshold,
        member_weights=how.member_weights,
        members=[str(member.root) for member in members],
        areas=limits(data.settings),
    )
    done = read_done(run, key)
    if done:
        print_cv(done)
        made = f"{counted(done.images, 'image')}, {counted(len(done.checkpoints), 'network')}"
        print(f"\n{run.cv} is complete: {made}; nothing to do")
        return
    if ranks.first():
        require_plausible_in_run(run, data)
    choices = Choices.same(Choice(effective(threshold), weights), job.by_fold)
    choosable = tried if how.member_weights == "auto" else [weights]
    found = job.predict(choices, measured_mixtures(weights, len(how.tta), tried), choosable)
    gains = gains_of_tta(how.tta, weights, found.mixtures, found.folds)
    gains += gains_of_members([member.name for member in used], len(how.tta), found.mixtures, found.folds)
    if len(used) > 1:
        choices, found, row = choose_weights(job, choices, found, tried)
        gains.append(row)
    choices, found, tuning, row = choose_threshold(job, choices, found)
    gains.append(row)

    if ranks.first():
        submission_file.join(run.oof, found.shards)
        scores = score_file(run.oof, data, job.by_fold)
        files.write_text(run.oof_scores, scores.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
        folds = [
            fold_score(fold, scores, choice, weights_of_all(members, used, choice))
            for fold, choice in choices.folds.items()
        ]
        cv = CV(
            dice=float(scores["dice"].mean()),
            iou=float(scores["iou"].mean()),
            spread=spread([fold.dice for fold in folds]),
            spread_iou=spread([fold.iou for fold in folds]),
            images=len(scores),
            cars=int(scores["car"].nunique()),
            threshold=choices.test.threshold,
            tta=list(how.tta),
            folds=folds,
            member_weights=weights_of_all(members, used, choices.test) or None,
            tuning=tuning,
            curve=ThresholdCurve(thresholds=thresholds(), dice=found.curves.mean(axis=0).tolist()),
            gains=gains,
            checkpoints={str(path): digest for path, digest in job.digests.items()},
            engine=resolve_engine(how, pick_device()),
            key=key,
            sha256={path.name: files.sha256(path) for path in (run.oof, run.oof_scores)},
        )
        cv.write(run.cv)
        print_cv(cv)
    job.remove()


def read_done(run: RunFolder, key: str) -> CV | None:
    """The CV of a run if it has this key and its files are there as they were written."""
    try:
        cv = CV.read_if_exists(run.cv)
    except Failure:  # damaged: it is written again
        return None
    written = (run.oof, run.oof_scores)
    if cv is None or cv.key != key or not all(path.is_file() for path in written):
        return None
    return cv if cv.sha256 == {path.name: files.sha256(path) for path in written} else None


def choose_weights(
    job: OutOfFoldJob, choices: Choices, found: OutOfFold, tried: Sequence[MemberWeights]
) -> tuple[Choices, OutOfFold, Gain]:
    """Choose member weights for each fold on the other folds, and use them if they raise the CV.

    Args:
        job: the prediction.
        choices: what was used so far.
        found: the predictions so far, with the mixtures of all weights to try.
        tried: equal weights first, then those of the settings or all that may be chosen.
    """
    settings = job.settings
    tta = equal(len(settings.tta))
    scores = np.stack([found.mixtures[Mixture(weights, tta)] for weights in tried], axis=1)
    if not isinstance(settings.member_weights, str):
        what = format_weights(tried[-1])
        return choices, found, gain(what, scores[:, -1], found.folds, over=EQUAL, before=scores[:, 0], note="as set")
    tuning = tune_weights(scores, found.folds)
    used = settings.member_weights == "auto" and tuning.helps
    best = format_weights(tried[tuning.choice])
    row = gain_of_choice("tuned weights", best, tuning, found.folds, over=EQUAL, used=used)
    if used:
        print(f"member weights: {tuning.gain:+.5f} if chosen on the other folds", flush=True)
        choices = choices.with_weights(tuning, tried)
        found = job.predict_again(choices, title="member weights of")
    return choices, found, row


def choose_threshold(
    job: OutOfFoldJob, choices: Choices, found: OutOfFold
) -> tuple[Choices, OutOfFold, ThresholdTuning, Gain]:
    """Choose a threshold for each fold on the other folds, and use it if it raises the CV."""
    tuning = tune_threshold(found.curves, found.kept, found.folds)
    used = job.settings.threshold == "auto" and tuning.helps
    best = f"{thresholds()[tuning.choice]:g}"
    row = gain_of_choice("tuned threshold", best, tuning, found.folds, over="0.5", used=used)
    if used:
        print(f"threshold: {tuning.gain:+.5f} if chosen on the other folds", flush=True)
        choices = choices.with_threshold(tuning)
        found = job.predict_again(choices, title="threshold of")
    return choices, found, threshold_tuning(tuning, used), row


def weights_of_all(members: Sequence[RunFolder], used: Sequence[RunFolder], choice: Choice) -> dict[str, float]:
    """The weight of each member, 0 for those that are not used; empty for a single run."""
    if len(members) == 1:
        return {}
    return weights_by_name(members, (0.0,) * len(members)) | weights_by_name(used, choice.member_weights)


def print_cv(cv: CV) -> None:
    """Print the CV as a table, and what each part of the prediction adds to it."""
    print("\nfold  cars  images     Dice      IoU")
    for fold in cv.folds:
        print(f"{fold.fold:>4}  {fold.cars:>4}  {fold.images:>6}  {fold.dice:.5f}  {fold.iou:.5f}")
    print(f" all  {cv.cars:>4}  {cv.images:>6}  {cv.dice:.5f}  {cv.iou:.5f}")
    print(f"standard deviation    {cv.spread:.5f}  {cv.spread_iou:.5f}\n")
    weights = f"{format_weights(tuple(cv.member_weights.values()))}; " if cv.member_weights else ""
    print(f"tta {', '.join(cv.tta)}; {weights}threshold {cv.threshold:g}\n")
    print_gains(cv.gains, len(cv.folds))


@ranks.joined()
def main(argv: Sequence[str] | None = None) -> None:
    """Score a run, or several together."""
    arguments = parser(
        "Score a run by cross-validation: each training image is predicted by the fold that did not see its car."
    )
    add_member_arguments(arguments)
    add_deadline_argument(arguments)
    options = arguments.parse_args(argv)
    deadline = Deadline(options.hours)
    run, settings, data, members = open_members(options)
    score_run(run, settings, data, members, deadline)


if __name__ == "__main__":
    run_command(main)
