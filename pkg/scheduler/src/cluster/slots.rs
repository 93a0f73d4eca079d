//! Things with small numbers for names. The number of one that went is given away again.

/// How many things, of how many bytes together, are kept that nobody used lately.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    pub number: usize,
    pub size: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Slots<T> {
    all: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots {
            all: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slots<T> {
    /// Keeps it; its number.
    pub fn insert(&mut self, thing: T) -> u32 {
        let id = self.free.pop().unwrap_or_else(|| {
            self.all.push(None);
            u32::try_from(self.all.len() - 1).unwrap_or(u32::MAX)
        });
        self.all[id as usize] = Some(thing);
        id
    }

    /// Forgets it.
    pub fn remove(&mut self, id: u32) -> Option<T> {
        let thing = self.all.get_mut(id as usize)?.take()?;
        self.free.push(id);
        Some(thing)
    }

    pub fn get(&self, id: u32) -> Option<&T> {
        self.all.get(id as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.all.get_mut(id as usize)?.as_mut()
    }

    /// All, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..)
            .zip(&self.all)
            .filter_map(|(id, thing)| Some((id, thing.as_ref()?)))
    }

    /// All.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.all.iter_mut().flatten()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len() - self.free.len()
    }

    /// The numbers of those that were used longest ago, where there are more than the limit: a quarter of it more than need be, so
    /// that it is not one each time. `of` says when one was used and how large it is.
    pub fn oldest(&self, limit: Limit, of: impl Fn(&T) -> (u64, usize)) -> Vec<u32> {
        let (mut number, mut size) = (self.len(), self.iter().map(|(_, thing)| of(thing).1).sum::<usize>());
        if number <= limit.number && size <= limit.size {
            return Vec::new();
        }
        let few = |number: usize, size: usize| number <= limit.number - limit.number / 4 && size <= limit.size / 4 * 3;
        let mut all: Vec<(u64, u32, usize)> = self.iter().map(|(id, thing)| (of(thing).0, id, of(thing).1)).collect();
        all.sort_unstable();
        let gone = all.into_iter().take_while(|(_, _, own)| {
            let goes = !few(number, size);
            (number, size) = (number - 1, size - own);
            goes
        });
        gone.map(|(_, id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_away_again() {
        let mut slots = Slots::default();
        let (a, b) = (slots.insert('a'), slots.insert('b'));
        assert_eq!(slots.remove(a), Some('a'));
        assert_eq!((slots.remove(a), slots.len()), (None, 1));
        assert_eq!(slots.insert('c'), a);
        assert_eq!(slots.iter().collect::<Vec<_>>(), [(a, &'c'), (b, &'b')]);
    }

    #[test]
    fn those_used_longest_ago_go_when_there_are_too_many() {
        let mut slots = Slots::default();
        for used in 0..5_u64 {
            slots.insert(9 - used);
        }
        for (number, size, gone) in [
            (5, 50, &[][..]),
            (4, 50, &[4, 3]),
            // By then they are one less than need be.
            (5, 40, &[4, 3]),
            (5, 10, &[4, 3, 2, 1, 0]),
        ] {
            let limit = Limit { number, size };
            assert_eq!(slots.oldest(limit, |used| (*used, 10)), gone, "{limit:?}");
        }
    }
}
