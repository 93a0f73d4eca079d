//! The status of a Job: whoever runs it may not contradict itself, nor take back an end. What was as wrong before is let
//! be: a change of the spec may have made it so.

use serde_json::Value;

use super::rules::{Rules, Scope, check, non_negative, object as within, whole};
use super::{Errors, IMMUTABLE, Path, flag, has, indexes, int, list, same, spec_of, strings, text};
use crate::status::FieldError;
use crate::{meta as object, time};

const COUNTS: Rules = &[
    non_negative("active"),
    non_negative("succeeded"),
    non_negative("failed"),
    non_negative("ready"),
    non_negative("terminating"),
    within("uncountedTerminatedPods", &[whole(uncounted)]),
];

/// Conditions that are true, as bits.
type Set = u8;
const COMPLETE: Set = 1;
const FAILED: Set = 2;
const FAILING: Set = 4;
const MET: Set = 8;
const TYPES: [(Set, &str); 4] = [
    (FAILED, "Failed"),
    (COMPLETE, "Complete"),
    (FAILING, "FailureTarget"),
    (MET, "SuccessCriteriaMet"),
];

/// What may not be true together, or without another.
struct Contradiction {
    with: Set,
    without: Set,
    why: &'static str,
}

const fn contradiction(with: Set, without: Set, why: &'static str) -> Contradiction {
    Contradiction { with, without, why }
}

const BOTH_ENDS: Contradiction = contradiction(
    COMPLETE | FAILED,
    0,
    "cannot set Complete=True and Failed=true conditions",
);
const COMPLETE_AND_FAILING: Contradiction = contradiction(
    COMPLETE | FAILING,
    0,
    "cannot set Complete=True and FailureTarget=true conditions",
);
const FAILED_UNDECIDED: Contradiction = contradiction(
    FAILED,
    FAILING,
    "cannot set Failed=True condition without the FailureTarget=true condition",
);
const COMPLETE_UNDECIDED: Contradiction = contradiction(
    COMPLETE,
    MET,
    "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
);
/// These are looked at whether or not something changed.
const ALWAYS: [Contradiction; 2] = [
    contradiction(
        MET | FAILED,
        0,
        "cannot set SuccessCriteriaMet=True and Failed=true conditions",
    ),
    contradiction(
        MET | FAILING,
        0,
        "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
    ),
];

/// The two statuses of a change.
struct Change<'a> {
    spec: &'a Value,
    new: &'a Value,
    old: &'a Value,
    /// Of conditions: true now, and before.
    now: Set,
    was: Set,
}

pub fn job_status(new: &Value, old: &Value, errors: &mut Errors) {
    let status = |job| has(job, "status").unwrap_or(&Value::Null);
    let path = Path::new("status");
    let change = Change {
        spec: spec_of(new),
        new: status(new),
        old: status(old),
        now: held(new),
        was: held(old),
    };
    check(COUNTS, change.new, &Scope::of(new), &path, errors);
    change.ends(&path, errors);
    change.finished(&path, errors);
    change.indexes(&path, errors);
    change.rest(&path, errors);
    change.taken_back(&path, errors);
}

fn held(job: &Value) -> Set {
    let all = object::items(job, &["status", "conditions"]);
    let is_true = |name| {
        all.iter()
            .any(|own| text(own, "type") == name && text(own, "status") == "True")
    };
    TYPES
        .iter()
        .filter(|(_, name)| is_true(*name))
        .fold(0, |set, (bit, _)| set | bit)
}

fn uncounted(pods: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = std::collections::HashSet::new();
    for field in ["succeeded", "failed"] {
        let path = path.child(field);
        for (index, uid) in strings(pods, field).enumerate() {
            if uid.is_empty() {
                errors.push(FieldError::invalid(path.index(index), uid, "must not be empty"));
            } else if !seen.insert(uid) {
                errors.push(FieldError::duplicate(path.index(index), uid));
            }
        }
    }
}

impl Change<'_> {
    fn turned(&self, set: Set) -> bool {
        (self.now ^ self.was) & set != 0
    }

    fn is(&self, set: Set) -> bool {
        self.now & set != 0
    }

    fn changed(&self, field: &str) -> bool {
        !same(has(self.new, field), has(self.old, field))
    }

    fn count_changed(&self, field: &str) -> bool {
        int(self.new, field).unwrap_or(0) != int(self.old, field).unwrap_or(0)
    }

    fn contradicts(&self, one: &Contradiction, path: &Path<'_>, errors: &mut Errors) {
        if self.now & one.with == one.with && self.now & one.without == 0 {
            errors.push(FieldError::invalid_unshown(path.child("conditions"), one.why));
        }
    }

    fn ends(&self, path: &Path<'_>, errors: &mut Errors) {
        if self.turned(COMPLETE | FAILED) {
            self.contradicts(&BOTH_ENDS, path, errors);
        }
        if self.turned(COMPLETE | FAILING) {
            self.contradicts(&COMPLETE_AND_FAILING, path, errors);
        }
        let (start, end) = (text(self.new, "startTime"), text(self.new, "completionTime"));
        let at = path.child("completionTime");
        if self.turned(COMPLETE) || self.changed("completionTime") {
            match (end.is_empty(), self.is(COMPLETE)) {
                (false, false) => {
                    let why = "cannot set completionTime when there is no Complete=True condition";
                    errors.push(FieldError::invalid(at, end, why));
                }
                (true, true) => {
                    let why = "completionTime is required for Complete jobs";
                    errors.push(FieldError::required(at, why));
                }
                _ => {}
            }
        }
        let moved = self.changed("startTime") || self.changed("completionTime");
        if let (true, Some(start), Some(end)) = (moved, time::parse(start), time::parse(end))
            && end < start
        {
            let own = text(self.new, "completionTime");
            errors.push(FieldError::invalid(at, own, "must be equal to or after `startTime`"));
        }
        if self.turned(FAILED) || self.changed("failedIndexes") {
            self.contradicts(&FAILED_UNDECIDED, path, errors);
        }
        if self.turned(COMPLETE | MET) {
            self.contradicts(&COMPLETE_UNDECIDED, path, errors);
        }
    }

    /// What is left over where the job has ended.
    fn finished(&self, path: &Path<'_>, errors: &mut Errors) {
        const ENDED: Set = COMPLETE | FAILED;
        let turned = self.is(ENDED) != (self.was & ENDED != 0);
        if !self.is(ENDED) {
            return;
        }
        let active = int(self.new, "active").unwrap_or(0);
        if active > 0 && (turned || self.count_changed("active")) {
            let why = "active>0 is invalid for finished job";
            errors.push(FieldError::invalid(path.child("active"), active, why));
        }
        let nothing_to_do = flag(self.spec, "suspend") && int(self.spec, "completions") == Some(0);
        let unstarted = has(self.new, "startTime").is_none() && !nothing_to_do;
        if unstarted && (turned || self.changed("startTime")) {
            let why = "startTime is required for finished job";
            errors.push(FieldError::required(path.child("startTime"), why));
        }
        if let Some(pods) = has(self.new, "uncountedTerminatedPods")
            && !(list(pods, "failed").is_empty() && list(pods, "succeeded").is_empty())
            && (turned || self.changed("uncountedTerminatedPods"))
        {
            let path = path.child("uncountedTerminatedPods");
            errors.push(FieldError::invalid(
                path,
                pods.clone(),
                "must be empty for finished job",
            ));
        }
    }

    fn indexes(&self, path: &Path<'_>, errors: &mut Errors) {
        let completions = int(self.spec, "completions");
        let completed = text(self.new, "completedIndexes");
        let failed = has(self.new, "failedIndexes").and_then(Value::as_str);
        let completed_changed = completed != text(self.old, "completedIndexes");
        let failed_changed = self.changed("failedIndexes");
        let per_index = has(self.spec, "backoffLimitPerIndex").is_some();
        let mut wrong = |field, own: &str, why: String| errors.push(FieldError::invalid(path.child(field), own, why));
        if let Some(completions) = completions {
            let checked = [
                ("completedIndexes", completed_changed, Some(completed)),
                ("failedIndexes", failed_changed && per_index, failed),
            ];
            for (field, changed, own) in checked {
                if let (true, Some(own)) = (changed, own)
                    && let Err(why) = indexes::count(own, completions)
                {
                    wrong(field, own, format!("error parsing {field}: {why}"));
                }
            }
        }
        if completed_changed && !completed.is_empty() && text(self.spec, "completionMode") != "Indexed" {
            let why = "cannot set non-empty completedIndexes when non-indexed completion mode";
            wrong("completedIndexes", completed, why.into());
        }
        let Some(failed) = failed else { return };
        if failed_changed && !per_index {
            let why = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
            wrong("failedIndexes", failed, why.into());
        }
        if let Some(completions) = completions.filter(|_| failed_changed || completed_changed)
            && let Some(index) = indexes::overlap(completed, failed, completions)
        {
            let why = format!("failedIndexes and completedIndexes overlap at index: {index}");
            wrong("failedIndexes", failed, why);
        }
    }

    fn rest(&self, path: &Path<'_>, errors: &mut Errors) {
        const ENDED: Set = COMPLETE | FAILED;
        let turned = self.is(ENDED) != (self.was & ENDED != 0);
        let number = |field| int(self.new, field);
        if let Some(left) = number("terminating").filter(|&left| left > 0 && self.is(ENDED))
            && (turned || self.changed("terminating"))
        {
            let why = "terminating>0 is invalid for finished job";
            errors.push(FieldError::invalid(path.child("terminating"), left, why));
        }
        if let Some(ready) = number("ready").filter(|&ready| ready > number("active").unwrap_or(0))
            && (self.changed("ready") || self.count_changed("active"))
        {
            let why = "cannot set more ready pods than active";
            errors.push(FieldError::invalid(path.child("ready"), ready, why));
        }
        for one in &ALWAYS {
            self.contradicts(one, path, errors);
        }
        if has(self.spec, "successPolicy").is_some() && self.is(COMPLETE) && !self.is(MET) {
            let why = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
            errors.push(FieldError::invalid_unshown(path.child("conditions"), why));
        }
    }

    fn taken_back(&self, path: &Path<'_>, errors: &mut Errors) {
        let conditions = path.child("conditions");
        let gone = self.was & !self.now;
        for (bit, name) in &TYPES[..3] {
            if gone & bit != 0 {
                let why = format!("cannot disable the terminal {name}=True condition");
                errors.push(FieldError::invalid_unshown(conditions, why));
            }
        }
        // Jobs whose indexes are as many as run at once may be made smaller.
        let scaled = text(self.spec, "completionMode") == "Indexed"
            && same(has(self.spec, "completions"), has(self.spec, "parallelism"));
        for (field, counts) in [("failed", true), ("succeeded", !scaled)] {
            let own = int(self.new, field).unwrap_or(0);
            if counts && own < int(self.old, field).unwrap_or(0) {
                let why = format!("cannot decrease the {field} counter");
                errors.push(FieldError::invalid(path.child(field), own, why));
            }
        }
        let end = |status| has(status, "completionTime");
        if let (Some(own), Some(before)) = (end(self.new), end(self.old))
            && own != before
        {
            let path = path.child("completionTime");
            errors.push(FieldError::invalid(path, own.clone(), IMMUTABLE));
        }
        let suspended = |status, value| {
            list(status, "conditions")
                .iter()
                .any(|own| text(own, "type") == "Suspended" && text(own, "status") == value)
        };
        let resuming = suspended(self.old, "True") && suspended(self.new, "False");
        let restarted = has(self.old, "startTime").is_some() && self.changed("startTime");
        if restarted && !resuming && !flag(self.spec, "suspend") {
            let why = "startTime cannot be removed for unsuspended job";
            errors.push(FieldError::required(path.child("startTime"), why));
        }
        if gone & MET != 0 {
            let why = "cannot disable the SuccessCriteriaMet=True condition";
            errors.push(FieldError::invalid_unshown(conditions, why));
        }
        if self.was & COMPLETE != 0 && self.was & MET == 0 && self.is(MET) {
            let why = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
            errors.push(FieldError::invalid_unshown(conditions, why));
        }
    }
}
