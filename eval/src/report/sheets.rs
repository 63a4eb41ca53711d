//! Figures → tables for a person; pure.

use super::calibration::Calibration;
use super::figures::{Figures, OURS, Ranks};
use super::share::Share;
use super::sheet::Sheet;

/// Every part that has something to say.
pub(crate) fn sheets(figures: &Figures) -> Vec<Sheet> {
    let mut sheets = vec![summary(figures)];
    if figures.all.first.whole > 0 {
        sheets.push(families(figures));
        sheets.push(confusion(figures));
    }
    if !figures.confused.is_empty() {
        sheets.push(confused(figures));
    }
    if figures.first_hypothesis.hypotheses > 0 {
        sheets.push(reliability(figures));
    }
    if !figures.methods.is_empty() {
        sheets.push(methods(figures));
    }
    sheets
}

fn summary(figures: &Figures) -> Sheet {
    let mut sheet = Sheet::new("Diagnosis", &["", "[95 % interval]"]);
    let mut add = |name: &str, share: &Share| {
        if share.whole > 0 {
            sheet.row([name.to_owned(), share.to_string()]);
        }
    };
    let alarms = &figures.alarms;
    add("right cause first", &figures.all.first);
    add(
        "right cause among the first three",
        &figures.all.among_three,
    );
    add(
        "place: both ends, or the one there is",
        &figures.places.exact,
    );
    add(
        "place: one end named, the other left open",
        &figures.places.partial,
    );
    add("place: wrong", &figures.places.wrong);
    add(
        "two faults: one of them first, in its place",
        &figures.two_faults.one_first,
    );
    add(
        "two faults: both are the first two",
        &figures.two_faults.both_among_two,
    );
    add(
        "two faults: both among the first three",
        &figures.two_faults.both_among_three,
    );
    add("false alarm before the fault", &alarms.before_the_fault);
    add("false alarm on a healthy system", &alarms.healthy);
    add(
        "false alarm, every question to a healthy system",
        &alarms.healthy_questions,
    );
    add("fault of somebody else: abstained", &alarms.abstained);
    add(
        "right answer within 4 s of the fault",
        &figures.seconds.within_4_s,
    );
    add("right answer within 10 s", &figures.seconds.within_10_s);
    add("right answer at some time", &figures.seconds.ever);
    add("same question, same bytes", &figures.repeatable);
    let seconds = &figures.seconds;
    if let (Some(median), Some(p90), Some(longest)) = (seconds.median, seconds.p90, seconds.longest)
    {
        sheet.row([
            "seconds from the fault to the right answer".to_owned(),
            format!("median {median:.1}, nine of ten {p90:.1}, longest {longest:.1}"),
        ]);
    }
    let told = &figures.told;
    if let (Some(median), Some(p90), Some(longest)) = (told.median, told.p90, told.longest) {
        let never = told.ever.whole as f64 - told.ever.part;
        sheet.row([
            "seconds that a fault is told after it was mended".to_owned(),
            format!(
                "median {median:.1}, nine of ten {p90:.1}, longest {longest:.1}, to the last {never}, of {}",
                told.ever.whole
            ),
        ]);
    }
    let asking = &figures.asking;
    if let (Some(median), Some(p95), Some(longest)) = (asking.median, asking.p95, asking.longest) {
        sheet.row([
            "seconds a question waits for its answer".to_owned(),
            format!(
                "median {median:.2}, 95 of 100 {p95:.2}, longest {longest:.2}, of {}",
                asking.questions
            ),
        ]);
    }
    for (name, calibration) in [
        ("first hypotheses", &figures.first_hypothesis),
        ("all hypotheses", &figures.all_hypotheses),
    ] {
        if let (Some(brier), Some(constant), Some(ece)) = (
            calibration.brier,
            calibration.brier_of_constant,
            calibration.ece,
        ) {
            sheet.row([
                format!("confidence, {name}"),
                format!(
                    "Brier {brier:.3} (a constant: {constant:.3}), ECE {ece:.3}, of {}",
                    calibration.hypotheses
                ),
            ]);
        }
    }
    sheet.note = format!(
        "{} cases; faults of {} of {} failure modes",
        figures.cases, figures.modes_seen, figures.modes_declared
    );
    if figures.without_impact > 0 {
        sheet.note += &format!(
            "; not scored, because nobody felt the fault: {}",
            figures.without_impact
        );
    }
    if figures.disturbed > 0 {
        sheet.note += &format!(
            "; not right, with workloads outside the lab in the answer: {}",
            figures.disturbed
        );
    }
    sheet
}

fn families(figures: &Figures) -> Sheet {
    let mut sheet = Sheet::new(
        "By family",
        &["family", "first", "among three", "right in everything"],
    );
    let mut add = |name: &str, ranks: &Ranks| {
        let Ranks {
            first,
            among_three,
            right,
        } = ranks;
        sheet.row([
            name.to_owned(),
            first.to_string(),
            among_three.to_string(),
            right.to_string(),
        ]);
    };
    for (family, ranks) in &figures.families {
        add(family, ranks);
    }
    add("all", &figures.all);
    sheet.note =
        "A family is the label `area` of the runbook that declares the failure mode.".to_owned();
    sheet
}

fn confusion(figures: &Figures) -> Sheet {
    let mut columns: Vec<&str> = Vec::new();
    for family in figures.confusion.keys() {
        columns.push(family);
    }
    for got in figures.confusion.values().flat_map(|row| row.keys()) {
        if !columns.contains(&got.as_str()) {
            columns.push(got);
        }
    }
    let mut header = vec!["made"];
    header.extend(&columns);
    let mut sheet = Sheet::new("Family made, and family that was first", &header);
    for (family, row) in &figures.confusion {
        let cells = columns
            .iter()
            .map(|column| row.get(*column).map_or("·".to_owned(), ToString::to_string));
        sheet.row(std::iter::once(family.clone()).chain(cells));
    }
    sheet
}

fn confused(figures: &Figures) -> Sheet {
    let mut sheet = Sheet::new("Mistaken", &["made", "was first", "cases"]);
    for (expected, got, count) in &figures.confused {
        sheet.row([expected.clone(), got.clone(), count.to_string()]);
    }
    sheet
}

fn reliability(figures: &Figures) -> Sheet {
    let mut sheet = Sheet::new(
        "Reliability: what a confidence was worth",
        &[
            "confidence",
            "first: mean",
            "first: right",
            "all: mean",
            "all: right",
        ],
    );
    for tenth in 0..10 {
        let from = f64::from(tenth) / 10.0;
        let cells = |calibration: &Calibration| {
            let bin = calibration
                .bins
                .iter()
                .find(|bin| (bin.from - from).abs() < 0.01);
            bin.map_or(["–".to_owned(), "–".to_owned()], |bin| {
                [format!("{:.2}", bin.confidence), bin.right.to_string()]
            })
        };
        let [first_mean, first_right] = cells(&figures.first_hypothesis);
        let [all_mean, all_right] = cells(&figures.all_hypotheses);
        if all_mean != "–" {
            sheet.row([
                format!("{from:.1}–{:.1}", from + 0.1),
                first_mean,
                first_right,
                all_mean,
                all_right,
            ]);
        }
    }
    sheet
}

fn methods(figures: &Figures) -> Sheet {
    let mut sheet = Sheet::new(
        "Methods on the same data",
        &["method", "first", "among three", "family", "false alarms"],
    );
    let ours = figures.methods.iter().filter(|(name, _)| *name == OURS);
    let others = figures.methods.iter().filter(|(name, _)| *name != OURS);
    for (name, method) in ours.chain(others) {
        sheet.row([
            name.clone(),
            method.first.to_string(),
            method.among_three.to_string(),
            method.family.to_string(),
            method
                .false_alarms
                .map_or("–".to_owned(), |share| share.to_string()),
        ]);
    }
    sheet.note = "Modes that a method holds for equally likely count by their chance. False alarms: of questions before the fault, and to systems whose network is fine."
        .to_owned();
    sheet
}
