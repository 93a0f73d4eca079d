//! Sets of field paths: what a manager owns, what a change touches. A tree, each level sorted.

use std::cmp::Ordering;

use super::element::Element;

/// A set of paths. Owning a path says nothing of what lies below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set(Vec<Node>);

/// A step that is in the set, or has something below it that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub element: Element,
    /// Whether the path that ends here is in the set itself.
    pub member: bool,
    pub below: Set,
}

impl Node {
    pub fn leaf(element: Element) -> Node {
        Node {
            element,
            member: true,
            below: Set::default(),
        }
    }

    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl Set {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn nodes(&self) -> &[Node] {
        &self.0
    }

    pub(super) fn into_nodes(self) -> impl Iterator<Item = Node> {
        self.0.into_iter()
    }

    /// Of nodes in any order, some of which may be of one step.
    pub(super) fn of(mut nodes: Vec<Node>) -> Set {
        nodes.retain(|node| !node.is_empty());
        if nodes.is_sorted_by(|one, two| one.element < two.element) {
            return Set(nodes);
        }
        nodes.sort_by(|one, two| one.element.cmp(&two.element));
        let mut out: Vec<Node> = Vec::with_capacity(nodes.len());
        // What lies below the last one, where it came more than once.
        let mut below = Vec::new();
        for mut node in nodes {
            if let Some(last) = out.last_mut() {
                if last.element == node.element {
                    last.member |= node.member;
                    below.append(&mut last.below.0);
                    below.append(&mut node.below.0);
                    continue;
                }
                if !below.is_empty() {
                    last.below = Set::of(std::mem::take(&mut below));
                }
            }
            out.push(node);
        }
        if let (Some(last), false) = (out.last_mut(), below.is_empty()) {
            last.below = Set::of(below);
        }
        Set(out)
    }

    /// What is in any of many sets.
    pub(super) fn of_all(sets: Vec<Set>) -> Set {
        Set::of(sets.into_iter().flat_map(|set| set.0).collect())
    }

    /// Adds a node that comes after all others; one that holds nothing is left out.
    pub(super) fn push(&mut self, node: Node) {
        debug_assert!(self.0.last().is_none_or(|last| last.element < node.element));
        if !node.is_empty() {
            self.0.push(node);
        }
    }

    /// The set of some paths of field names.
    pub fn of_fields(paths: &[&[&str]]) -> Set {
        let mut set = Set::default();
        for path in paths {
            set.insert(path.iter().map(|name| Element::field(name)));
        }
        set
    }

    /// Adds a path; an empty one is the whole object, which nobody owns.
    pub fn insert(&mut self, path: impl IntoIterator<Item = Element>) {
        let mut path = path.into_iter().peekable();
        let mut set = self;
        while let Some(element) = path.next() {
            let at = match set.0.binary_search_by(|node| node.element.cmp(&element)) {
                Ok(at) => at,
                Err(at) => {
                    let node = Node {
                        element,
                        member: false,
                        below: Set::default(),
                    };
                    set.0.insert(at, node);
                    at
                }
            };
            if path.peek().is_none() {
                set.0[at].member = true;
                return;
            }
            set = &mut set.0[at].below;
        }
    }

    /// Adds a node wherever it belongs.
    pub(super) fn add(&mut self, node: Node) {
        if node.is_empty() {
            return;
        }
        match self.0.binary_search_by(|own| own.element.cmp(&node.element)) {
            Ok(at) => {
                self.0[at].member |= node.member;
                self.0[at].below = self.0[at].below.union(&node.below);
            }
            Err(at) => self.0.insert(at, node),
        }
    }

    pub fn get(&self, element: &Element) -> Option<&Node> {
        let at = self.0.binary_search_by(|node| node.element.cmp(element)).ok()?;
        Some(&self.0[at])
    }

    /// A field's node, without an element of its own to look for.
    pub(super) fn field(&self, name: &str) -> Option<&Node> {
        let at = self
            .0
            .binary_search_by(|node| match &node.element {
                Element::Field(own) => (**own).cmp(name),
                _ => Ordering::Greater,
            })
            .ok()?;
        Some(&self.0[at])
    }

    pub fn has(&self, path: &[Element]) -> bool {
        let Some((last, before)) = path.split_last() else {
            return false;
        };
        let mut set = self;
        for element in before {
            match set.get(element) {
                Some(node) => set = &node.below,
                None => return false,
            }
        }
        set.get(last).is_some_and(|node| node.member)
    }

    /// What is in either.
    pub fn union(&self, other: &Set) -> Set {
        if other.is_empty() {
            return self.clone();
        }
        if self.is_empty() {
            return other.clone();
        }
        let mut out = Set(Vec::with_capacity(self.0.len().max(other.0.len())));
        zip(self, other, |one, two| match (one, two) {
            (Some(one), Some(two)) => out.push(Node {
                element: one.element.clone(),
                member: one.member || two.member,
                below: one.below.union(&two.below),
            }),
            (Some(only), None) | (None, Some(only)) => out.push(only.clone()),
            (None, None) => {}
        });
        out
    }

    /// What is in both.
    pub fn intersection(&self, other: &Set) -> Set {
        let (few, many) = match self.0.len() < other.0.len() {
            true => (self, other),
            false => (other, self),
        };
        let mut out = Set::default();
        for one in &few.0 {
            if let Some(two) = many.get(&one.element) {
                out.push(Node {
                    element: one.element.clone(),
                    member: one.member && two.member,
                    below: one.below.intersection(&two.below),
                });
            }
        }
        out
    }

    /// What is in either, of two that are not needed any more.
    pub(super) fn joined(self, other: Set) -> Set {
        match (self.is_empty(), other.is_empty()) {
            (true, _) => other,
            (_, true) => self,
            _ => self.union(&other),
        }
    }

    /// What is in this one alone. What lies below a path of the other stays.
    pub fn difference(&self, other: &Set) -> Set {
        let mut out = self.clone();
        out.lose(other);
        out
    }

    /// Takes away what is in another one.
    pub(super) fn lose(&mut self, other: &Set) {
        self.meet(other, |own, other| {
            own.member &= !other.member;
            own.below.lose(&other.below);
        });
    }

    /// Takes away what is in another one, and what is below a path of it.
    pub(super) fn lose_all(&mut self, other: &Set) {
        self.meet(other, |own, other| {
            own.below.lose_all(&other.below);
            if other.member {
                own.member = false;
                own.below = Set::default();
            }
        });
    }

    /// Changes the nodes that another set has too; those that hold nothing afterwards go.
    fn meet(&mut self, other: &Set, change: impl Fn(&mut Node, &Node)) {
        let mut emptied = false;
        let mut from = 0;
        let few = self.0.len() < other.0.len();
        for own in self.0.iter_mut().filter(|_| few) {
            if let Some(other) = other.get(&own.element) {
                change(own, other);
                emptied |= own.is_empty();
            }
        }
        for other in other.0.iter().filter(|_| !few) {
            match self.0[from..].binary_search_by(|own| own.element.cmp(&other.element)) {
                Ok(at) => {
                    let own = &mut self.0[from + at];
                    change(own, other);
                    emptied |= own.is_empty();
                    from += at + 1;
                }
                Err(at) => from += at,
            }
        }
        if emptied {
            self.0.retain(|node| !node.is_empty());
        }
    }

    /// How many paths are in the set.
    pub fn count(&self) -> usize {
        let nodes = self.0.iter();
        nodes.map(|node| usize::from(node.member) + node.below.count()).sum()
    }

    /// Whether there are more paths in the set; looks no further than that.
    pub(super) fn has_more_than(&self, count: usize) -> bool {
        self.taken_from(count).is_none()
    }

    /// What is left of a number when one is taken away for each path.
    fn taken_from(&self, count: usize) -> Option<usize> {
        self.0.iter().try_fold(count, |left, node| {
            let left = left.checked_sub(usize::from(node.member))?;
            node.below.taken_from(left)
        })
    }

    /// Calls `each` for every path that is in the set: those of one level first, then what lies below each of them.
    pub fn each(&self, each: &mut impl FnMut(&[Element])) {
        self.each_below(&mut Vec::new(), each);
    }

    fn each_below(&self, path: &mut Vec<Element>, each: &mut impl FnMut(&[Element])) {
        for members in [true, false] {
            for node in &self.0 {
                path.push(node.element.clone());
                match members {
                    true if node.member => each(path),
                    false => node.below.each_below(path, each),
                    true => {}
                }
                path.pop();
            }
        }
    }
}

/// Walks two sets' levels side by side, in order.
fn zip<'a>(one: &'a Set, two: &'a Set, mut each: impl FnMut(Option<&'a Node>, Option<&'a Node>)) {
    let (mut ones, mut twos) = (one.0.iter().peekable(), two.0.iter().peekable());
    loop {
        let order = match (ones.peek(), twos.peek()) {
            (Some(one), Some(two)) => one.element.cmp(&two.element),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return,
        };
        match order {
            Ordering::Less => each(ones.next(), None),
            Ordering::Equal => each(ones.next(), twos.next()),
            Ordering::Greater => each(None, twos.next()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(paths: &[&[&str]]) -> Set {
        Set::of_fields(paths)
    }

    #[test]
    fn sets_are_joined_and_taken_from_each_other() {
        let one = set(&[&["a"], &["a", "b"], &["c", "d", "e"], &["f"]]);
        let two = set(&[&["a"], &["c", "d"], &["g"]]);
        assert_eq!(
            one.union(&two),
            set(&[&["a"], &["a", "b"], &["c", "d"], &["c", "d", "e"], &["f"], &["g"]])
        );
        assert_eq!(one.intersection(&two), set(&[&["a"]]));
        assert_eq!(one.difference(&two), set(&[&["a", "b"], &["c", "d", "e"], &["f"]]));
        let mut left = one.clone();
        left.lose_all(&two);
        assert_eq!(left, set(&[&["f"]]));
        assert!(one.difference(&one).is_empty());
        assert!(one.intersection(&set(&[&["c"]])).is_empty());
        assert!(one.has(&[Element::field("c"), Element::field("d"), Element::field("e")]));
        assert!(!one.has(&[Element::field("c")]));
    }

    #[test]
    fn paths_come_level_by_level() {
        let mut seen = Vec::new();
        set(&[&["b"], &["a", "x"], &["a"], &["a", "x", "y"]]).each(&mut |path| {
            seen.push(path.iter().map(ToString::to_string).collect::<String>());
        });
        assert_eq!(seen, [".a", ".b", ".a.x", ".a.x.y"]);
    }
}
