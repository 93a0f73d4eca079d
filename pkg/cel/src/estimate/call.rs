//! What calls can cost, and how large what they return can be.

use super::{Estimate, Estimator, Inside, LIST, Path, Range};
use crate::ast::{Call, Expr, Kind, Literal};
use crate::functions;
use crate::types::Type;

/// A character's share of a text that is gone through.
const TRAVERSAL: f64 = 0.1;
/// A character's share of a regular expression.
const REGEX: f64 = 0.25;
/// Characters of the largest regular expression of a named format, and of the name of one.
const FORMAT_REGEX: f64 = 128.0;
const FORMAT_NAME: u64 = 64;

/// A call with what is known of its arguments.
struct Called<'c, 'e> {
    call: &'e Call,
    target: Option<&'c Estimate<'e>>,
    args: &'c [Estimate<'e>],
}

/// The cost of a call without its arguments, and the size of what it returns.
type Priced = (Range, Option<Range>);

impl<'e> Called<'_, 'e> {
    fn size(&self, index: usize) -> Option<Range> {
        self.args.get(index).map(Estimate::size_or_unknown)
    }

    fn target_size(&self) -> Option<Range> {
        self.target.map(Estimate::size_or_unknown)
    }

    fn literal_int(&self, index: usize) -> Option<i64> {
        match self.call.args.get(index)?.kind {
            Kind::Literal(Literal::Int(value)) => Some(value),
            _ => None,
        }
    }

    fn literal_size(&self, index: usize, otherwise: u64) -> u64 {
        self.literal_int(index)
            .map_or(otherwise, |value| u64::try_from(value).unwrap_or(0))
    }
}

impl<'e> Estimator<'e> {
    pub(super) fn call(&mut self, expr: &'e Expr, call: &'e Call) -> Estimate<'e> {
        if &*call.function == "dyn"
            && let [arg] = &call.args[..]
        {
            let arg = self.estimate(arg);
            return Estimate {
                cost: arg.cost.plus(Range::exactly(1)),
                path: Path::None,
                ..arg
            };
        }
        let args: Vec<Estimate<'e>> = call.args.iter().map(|arg| self.estimate(arg)).collect();
        let target = call.target.as_deref().map(|target| self.estimate(target));
        let called = Called {
            call,
            target: target.as_ref(),
            args: &args,
        };
        let mut inside = None;
        let mut path = Path::None;
        let (mut cost, mut size): (Option<Range>, Option<Range>) = (None, None);
        for overload in &expr.overloads {
            let overload = functions::overload_at(*overload).id;
            let (own, result) = self.overload(overload, &called, &mut inside);
            cost = Some(cost.map_or(own, |cost| cost.union(own)));
            size = match (size, result) {
                (Some(size), Some(result)) => Some(size.union(result)),
                (size, result) => size.or(result),
            };
            if matches!(overload, "index_list" | "index_map")
                && let Some(of) = args.first()
            {
                size = of.inside.map(|inside| inside.value);
                path = self.items(of.path);
            }
            size = size.or_else(|| self.size(path, &expr.of, None));
        }
        let Some(cost) = cost else {
            return Estimate {
                cost: Range::exactly(0),
                path,
                size: None,
                inside: None,
            };
        };
        let target_cost = target.map_or(Range::exactly(0), |target| target.cost);
        Estimate {
            cost: cost.plus(target_cost),
            path,
            size,
            inside,
        }
    }

    /// The cost of an overload with that of its arguments.
    fn overload(&self, overload: &str, called: &Called<'_, 'e>, inside: &mut Option<Inside>) -> Priced {
        let all = called
            .args
            .iter()
            .fold(Range::exactly(0), |sum, arg| sum.plus(arg.cost));
        let priced = of_lists(overload, called)
            .or_else(|| self.of_kubernetes(overload, called))
            .or_else(|| of_texts(overload, called));
        if let Some((cost, size)) = priced {
            return (cost.plus(all), size);
        }
        let [first, second, ..] = called.args else {
            return (Range::exactly(1).plus(all), None);
        };
        match overload {
            "logical_or" | "logical_and" => {
                let either = Range {
                    min: first.cost.min,
                    max: first.cost.plus(second.cost).max,
                };
                (either, None)
            }
            "conditional" => {
                let [condition, truthy, falsy] = called.args else {
                    return (all, None);
                };
                let branch = Inside::union(truthy.inside, falsy.inside);
                *inside = branch.or(*inside);
                let size = truthy.size_or_unknown().union(falsy.size_or_unknown());
                (condition.cost.plus(truthy.cost.union(falsy.cost)), Some(size))
            }
            "add_string" | "add_bytes" | "add_list" => {
                let size = first.size_or_unknown().plus(second.size_or_unknown());
                *inside = Inside::union(first.inside, second.inside).or(*inside);
                let cost = if overload == "add_list" {
                    Range::exactly(1)
                } else {
                    size.share(TRAVERSAL)
                };
                (cost.plus(all), Some(size))
            }
            "less_string"
            | "greater_string"
            | "less_equals_string"
            | "greater_equals_string"
            | "less_bytes"
            | "greater_bytes"
            | "less_equals_bytes"
            | "greater_equals_bytes"
            | "equals"
            | "not_equals" => {
                let max = first.size_or_unknown().max.min(second.size_or_unknown().max);
                (Range { min: max.min(1), max }.share(TRAVERSAL).plus(all), None)
            }
            _ => (Range::exactly(1).plus(all), None),
        }
    }

    /// What an item of a list that is at a path or of a type can have as its size.
    fn item_size(&self, of: &Estimate<'e>) -> Range {
        match of.path {
            Path::None => Range::UNKNOWN,
            path => match self.items(path) {
                Path::At { decl: Some(decl), .. } => Range {
                    min: 0,
                    max: decl.max_size,
                },
                _ => Range::UNKNOWN,
            },
        }
    }

    /// Functions of Kubernetes' own libraries, and those whose costs it sets.
    fn of_kubernetes(&self, overload: &str, called: &Called<'_, 'e>) -> Option<Priced> {
        let one = Some((Range::exactly(1), None));
        match &*called.call.function {
            "check" => Some((Range::exactly(350_000), None)),
            "serviceAccount" | "path" | "group" | "resource" | "subresource" | "namespace" | "name" | "allowed"
            | "reason" | "error" | "errored" => one,
            "fieldSelector" | "labelSelector" => {
                let size = called.size(0).filter(|_| called.args.len() == 1)?;
                let requirements = size.share(0.5).share(50.0);
                Some((
                    Range::exactly(LIST).plus(size.share(TRAVERSAL)).plus(requirements),
                    None,
                ))
            }
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => self.searched(called),
            "url" => called.size(0).map(|size| (size.share(TRAVERSAL), Some(size))),
            "lowerAscii" | "upperAscii" | "substring" | "trim" => {
                called.target_size().map(|size| (size.share(TRAVERSAL), Some(size)))
            }
            "replace" => replaced(called),
            "split" => {
                let size = called.target_size()?;
                let most = called.literal_int(1).map_or(size.max, |most| most as u64);
                Some((size.share(2.0 * TRAVERSAL), Some(Range { min: 0, max: most })))
            }
            "join" => self.joined(called),
            "find" | "findAll" => {
                let (size, pattern) = (called.target_size()?, called.size(0)?);
                let cost = size
                    .plus(Range::exactly(1))
                    .share(TRAVERSAL)
                    .times(pattern.share(REGEX));
                Some((cost, Some(Range { min: 0, max: size.max })))
            }
            _ => of_types(overload, called),
        }
    }

    fn searched(&self, called: &Called<'_, 'e>) -> Option<Priced> {
        let (target, size) = (called.target?, called.target_size()?);
        let item = match &called.call.target.as_deref()?.of {
            Type::List(item) => Some((**item).clone()),
            Type::Map(entry) => Some(entry.0.clone()),
            other => other.unwrapped().cloned(),
        };
        let Some(item) = item else {
            return Some((size.share(TRAVERSAL), None));
        };
        let mut each = Range::exactly(1);
        if matches!(item, Type::String | Type::Bytes) {
            each = each.plus(self.item_size(target).share(TRAVERSAL));
        }
        Some((size.times(each), None))
    }

    fn joined(&self, called: &Called<'_, 'e>) -> Option<Priced> {
        let (target, count) = (called.target?, called.target_size()?);
        let mut size = match &called.call.target.as_deref()?.of {
            Type::List(_) => count.times(self.item_size(target)),
            _ => Range::exactly(0),
        };
        if let Some(separator) = called.size(0) {
            let between = Range {
                min: count.min.saturating_sub(1),
                max: count.max.saturating_sub(1),
            };
            size = size.plus(separator.times(between));
        }
        Some((size.share(TRAVERSAL), Some(size)))
    }
}

/// Functions of addresses, quantities, versions, URLs and formats.
fn of_types(overload: &str, called: &Called<'_, '_>) -> Option<Priced> {
    let one = Some((Range::exactly(1), None));
    let traversed = |size: Option<Range>, factor: f64| Some((size?.share(factor * TRAVERSAL), None));
    match &*called.call.function {
        "ip" if overload == "cidr_ip" => one,
        "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
            traversed(called.size(0), 1.0)
        }
        "ip.isCanonical" => traversed(called.size(0), 2.0),
        "masked"
        | "prefixLength"
        | "family"
        | "isUnspecified"
        | "isLoopback"
        | "isLinkLocalMulticast"
        | "isLinkLocalUnicast"
        | "isGlobalUnicast"
        | "format.named"
        | "sign"
        | "asInteger"
        | "isInteger"
        | "asApproximateFloat"
        | "isGreaterThan"
        | "isLessThan"
        | "compareTo"
        | "add"
        | "sub"
        | "major"
        | "minor"
        | "patch"
        | "getScheme"
        | "getHostname"
        | "getHost"
        | "getPort"
        | "getEscapedPath"
        | "getQuery" => one,
        "containsIP" | "containsCIDR" => {
            let address = Range { min: 4, max: 16 };
            let mut cost = address.plus(address).share(TRAVERSAL);
            if &*called.call.function == "containsCIDR" {
                cost = cost.plus(address.share(TRAVERSAL)).plus(Range::exactly(1));
            }
            if matches!(overload, "cidr_contains_ip_string" | "cidr_contains_cidr_string") {
                cost = cost.plus(called.size(0)?.share(TRAVERSAL));
            }
            Some((cost, None))
        }
        "validate" => Some((called.size(0)?.share(TRAVERSAL).share(FORMAT_REGEX * REGEX), None)),
        "_==_" => equality(called),
        _ => None,
    }
}

/// Equality of libraries' types.
fn equality(called: &Called<'_, '_>) -> Option<Priced> {
    let [a, b] = &called.call.args[..] else { return None };
    if a.of != b.of {
        return None;
    }
    match &a.of {
        Type::Opaque(name, _) if matches!(&**name, "net.IP" | "net.CIDR") => Some((Range::exactly(1), None)),
        Type::Named(name) => match &**name {
            "kubernetes.NamedFormat" => Some((
                Range {
                    min: 1,
                    max: FORMAT_NAME,
                }
                .share(TRAVERSAL),
                None,
            )),
            "kubernetes.URL" => {
                let max = called.args[1].size.map_or(1, |size| size.max);
                Some((Range { min: 1, max }.share(TRAVERSAL), None))
            }
            _ => Some((Range::exactly(1), None)),
        },
        _ => None,
    }
}

fn replaced(called: &Called<'_, '_>) -> Option<Priced> {
    let (size, old, new) = (called.target_size()?, called.size(0)?, called.size(1)?);
    // How often something is replaced, and how much of the text stays, at most and at least.
    let bound = |own: u64, shortest: u64, never: bool| match (shortest, never) {
        (0, _) => (own.saturating_add(1), own),
        (_, true) => (0, own),
        _ => ((own as f64 / shortest as f64).ceil() as u64, 0),
    };
    let (most, most_kept) = bound(size.max, old.min, new.max <= old.min);
    let (least, least_kept) = bound(size.min, old.max, old.max <= new.min);
    let count = Range { min: least, max: most };
    let result = count.times(new).plus(Range {
        min: least_kept,
        max: most_kept,
    });
    Some((size.share(2.0 * TRAVERSAL), Some(result)))
}

/// Functions of the list and set libraries, which set their own costs.
fn of_lists(overload: &str, called: &Called<'_, '_>) -> Option<Priced> {
    let allocating = |factor: f64, size: Range| Some((size.share(factor).plus(Range::exactly(1 + LIST)), Some(size)));
    match overload {
        "list_slice" => {
            let end = called.literal_size(1, called.target_size()?.max);
            allocating(1.0, Range::exactly(end.wrapping_sub(called.literal_size(0, 0))))
        }
        "lists_range" => allocating(1.0, Range::exactly(called.literal_size(0, u64::MAX))),
        "list_reverse" => allocating(1.0, called.target_size()?),
        "list_flatten" => allocating(1.0, called.target_size()?),
        "list_flatten_int" => allocating(called.literal_size(0, u64::MAX) as f64, called.target_size()?),
        "list_distinct" => {
            let size = called.target_size()?;
            allocating(2.0, size.times(size))
        }
        "list_sets_contains_list" | "list_sets_intersects_list" | "list_sets_equivalent_list" => {
            let factor = if overload == "list_sets_equivalent_list" {
                2.0
            } else {
                1.0
            };
            Some((
                called
                    .size(0)?
                    .times(called.size(1)?)
                    .share(factor)
                    .plus(Range::exactly(1)),
                None,
            ))
        }
        _ => {
            let (of, size) = if let Some(of) = overload.strip_suffix("_sortByAssociatedKeys") {
                (of, called.size(0)?)
            } else if &*called.call.function == "sort" {
                (overload.strip_suffix("_sort")?, called.target_size()?)
            } else {
                return None;
            };
            let text = matches!(of, "list_string" | "list_bytes");
            allocating(if text { 2.0 + TRAVERSAL } else { 2.0 }, size.times(size))
        }
    }
}

/// Functions of texts in the standard library.
fn of_texts(overload: &str, called: &Called<'_, '_>) -> Option<Priced> {
    match overload {
        "string_format" => Some((called.target_size()?.share(TRAVERSAL), None)),
        "string_to_bytes" => {
            let size = called.size(0)?;
            Some((
                size.share(TRAVERSAL),
                Some(Range {
                    min: size.min,
                    max: size.max.wrapping_mul(4),
                }),
            ))
        }
        "bytes_to_string" => {
            let size = called.size(0)?;
            Some((
                size.share(TRAVERSAL),
                Some(Range {
                    min: size.min / 4,
                    max: size.max,
                }),
            ))
        }
        "strings_quote" => {
            let size = called.size(0)?;
            let max = size.max.wrapping_mul(2).wrapping_add(2);
            Some((
                size.share(TRAVERSAL),
                Some(Range {
                    min: size.min.wrapping_add(2),
                    max,
                }),
            ))
        }
        "starts_with_string" | "ends_with_string" => Some((called.size(0)?.share(TRAVERSAL), None)),
        "in_list" => Some((called.size(1)?, None)),
        "matches_string" => {
            let (size, pattern) = (called.target_size()?, called.size(0)?);
            Some((
                size.plus(Range::exactly(1))
                    .share(TRAVERSAL)
                    .times(pattern.share(REGEX)),
                None,
            ))
        }
        "contains_string" => {
            let (size, part) = (called.target_size()?, called.size(0)?);
            Some((size.share(TRAVERSAL).times(part.share(TRAVERSAL)), None))
        }
        _ => None,
    }
}
