//! Rows by key, in the order of their last changes.
//!
//! Pure. A table is a value. A copy is cheap, shares all rows with the original, and does not change with it. Every
//! change of a row gets the next place in one order. A reader with an older copy of the table finds the changed rows by
//! the last place of its copy, and does not visit the others.

use std::{
    collections::BTreeSet,
    ops::Bound,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use rpds::RedBlackTreeMapSync as Map;

/// Number of removals that a table remembers. A reader that has missed more compares all keys.
const REMOVALS_MAX: usize = 1024;

/// An immutable row. A change replaces it.
#[derive(Debug)]
pub(crate) struct Row<T> {
    pub(crate) shown: T,
    /// The place of the last change that readers are told of.
    place: u64,
    text: OnceLock<Bytes>,
}

impl<T> Row<T> {
    /// The serialized row. The first reader serializes it for all.
    pub(crate) fn text(&self, make: impl FnOnce(&T) -> Bytes) -> &Bytes {
        self.text.get_or_init(|| make(&self.shown))
    }
}

/// Rows by key.
#[derive(Debug, Clone)]
pub(crate) struct Table<K: Ord, T> {
    rows: Map<K, Arc<Row<T>>>,
    /// The same rows, by place.
    by_place: Map<u64, Arc<Row<T>>>,
    /// The keys of removed rows, by the places of the removals.
    removed: Map<u64, K>,
    /// The table has forgotten the removals up to this place.
    forgotten: u64,
    /// The place of the last change; 0 before the first.
    last: u64,
    /// Identifies a table and its copies. Places of tables with different origins cannot be compared.
    origin: Arc<()>,
}

impl<K: Ord, T> Default for Table<K, T> {
    fn default() -> Self {
        Self {
            rows: Map::new_sync(),
            by_place: Map::new_sync(),
            removed: Map::new_sync(),
            forgotten: 0,
            last: 0,
            origin: Arc::default(),
        }
    }
}

impl<K: Ord + Clone, T: PartialEq> Table<K, T> {
    /// Sets the row of the key, unless it is equal already. If the old and the new row are `alike`, readers of changes
    /// are not told of it.
    pub(super) fn put(&mut self, key: K, shown: T, alike: impl FnOnce(&T, &T) -> bool) {
        let before = self.rows.get(&key);
        if before.is_some_and(|before| before.shown == shown) {
            return;
        }
        let place = match before {
            Some(before) if alike(&before.shown, &shown) => before.place,
            before => {
                if let Some(before) = before {
                    self.by_place.remove_mut(&before.place);
                }
                self.last += 1;
                self.last
            }
        };
        let row = Arc::new(Row {
            shown,
            place,
            text: OnceLock::new(),
        });
        self.by_place.insert_mut(place, Arc::clone(&row));
        self.rows.insert_mut(key, row);
    }

    pub(super) fn remove(&mut self, key: &K) {
        let Some(row) = self.rows.get(key) else {
            return;
        };
        self.by_place.remove_mut(&row.place);
        self.rows.remove_mut(key);
        self.last += 1;
        self.removed.insert_mut(self.last, key.clone());
        if self.removed.size() > REMOVALS_MAX
            && let Some((oldest, _)) = self.removed.first()
        {
            self.forgotten = *oldest;
            self.removed.remove_mut(&self.forgotten);
        }
    }

    /// The row of this key.
    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&Arc<Row<T>>>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.rows.get(key)
    }

    /// All keys, sorted.
    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.rows.keys()
    }

    /// All rows, sorted by key.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Arc<Row<T>>> {
        self.rows.values()
    }

    /// The rows that are new for a reader of `told`, an older table. If both have the same origin, the rows are found
    /// by place, the oldest change first. Otherwise all rows that differ are returned.
    pub(crate) fn news(&self, told: &Self) -> Vec<&Arc<Row<T>>> {
        if !Arc::ptr_eq(&self.origin, &told.origin) {
            let is_news = |(key, row): &(&K, &Arc<Row<T>>)| {
                let before = told.rows.get(key);
                before.is_none_or(|before| before.shown != row.shown)
            };
            let news = self.rows.iter().filter(is_news);
            return news.map(|(_, row)| row).collect();
        }
        let later = (Bound::Excluded(told.last), Bound::Unbounded);
        self.by_place.range(later).map(|(_, row)| row).collect()
    }

    /// The keys of the rows that `told`, an older table, has and this one lacks.
    pub(crate) fn gone<'a>(&'a self, told: &'a Self) -> BTreeSet<&'a K> {
        let is_gone = |key: &&K| told.rows.contains_key(*key) && !self.rows.contains_key(*key);
        if told.last < self.forgotten || !Arc::ptr_eq(&self.origin, &told.origin) {
            return told.rows.keys().filter(is_gone).collect();
        }
        let later = (Bound::Excluded(told.last), Bound::Unbounded);
        let removed = self.removed.range(later).map(|(_, key)| key);
        removed.filter(is_gone).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(table: &mut Table<u32, u32>, key: u32, shown: u32) {
        // Numbers with the same tens digit are alike.
        table.put(key, shown, |a, b| a / 10 == b / 10);
    }

    fn news(table: &Table<u32, u32>, told: &Table<u32, u32>) -> (Vec<u32>, Vec<u32>) {
        let rows = table.news(told).into_iter().map(|row| row.shown).collect();
        (rows, table.gone(told).into_iter().copied().collect())
    }

    #[test]
    fn a_reader_of_any_copy_hears_what_it_lacks_and_no_more() {
        let none = Table::default();
        let mut table = none.clone();
        for key in 1..=3 {
            put(&mut table, key, 10 * key);
        }
        let first = table.clone();
        assert_eq!(news(&first, &none), (vec![10, 20, 30], vec![]));
        put(&mut table, 2, 20);
        put(&mut table, 3, 31);
        assert_eq!(
            news(&table, &first),
            (vec![], vec![]),
            "the same, and alike"
        );
        assert_eq!(table.get(&3).unwrap().shown, 31);
        put(&mut table, 1, 50);
        let second = table.clone();
        table.remove(&2);
        table.remove(&4);
        assert_eq!(news(&table, &second), (vec![], vec![2]));
        assert_eq!(news(&table, &first), (vec![50], vec![2]));
        assert_eq!(news(&table, &none), (vec![31, 50], vec![]));
        put(&mut table, 2, 20);
        assert_eq!(news(&table, &second), (vec![20], vec![]), "it is back");
        assert_eq!(
            news(&first, &none),
            (vec![10, 20, 30], vec![]),
            "a copy keeps what it is"
        );
    }

    #[test]
    fn a_reader_who_has_missed_more_removals_than_are_remembered_hears_of_all() {
        let mut table = Table::default();
        put(&mut table, 0, 0);
        let told = table.clone();
        table.remove(&0);
        let later = table.clone();
        for key in 1..=u32::try_from(REMOVALS_MAX).unwrap() {
            put(&mut table, key, key);
            table.remove(&key);
        }
        assert_eq!(table.removed.size(), REMOVALS_MAX, "they are bounded");
        assert_eq!(news(&table, &told), (vec![], vec![0]));
        assert_eq!(news(&table, &later), (vec![], vec![]));
    }

    #[test]
    fn a_reader_of_another_table_hears_of_all_that_is_different() {
        let (mut table, mut other) = (Table::default(), Table::default());
        for key in 1..=3 {
            put(&mut table, key, key);
            put(&mut other, key, if key == 2 { 50 } else { key });
        }
        table.remove(&3);
        assert_eq!(news(&table, &other), (vec![2], vec![3]));
        assert_eq!(news(&other, &table), (vec![50, 3], vec![]));
    }

    #[test]
    fn the_text_of_a_row_is_made_once() {
        let mut table = Table::default();
        put(&mut table, 1, 1);
        let made = std::cell::Cell::new(0);
        let text = |row: &Row<u32>| {
            row.text(|shown| {
                made.set(made.get() + 1);
                Bytes::from(shown.to_string())
            })
            .clone()
        };
        let copy = table.clone();
        let both = [&table, &copy].map(|table| text(table.get(&1).unwrap()));
        assert_eq!(
            (both, made.get()),
            ([Bytes::from("1"), Bytes::from("1")], 1)
        );
    }
}
