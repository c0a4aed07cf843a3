//! What corrections make of events: a pile of states for each, the topmost of which counts.

use super::event::Event;

/// What became of every event that was received, in the order of receipt.
#[derive(Debug, Clone, Default)]
pub(crate) struct Corrections {
    /// Of each event the corrections in force, oldest first, with what each made of it.
    piles: Vec<Vec<(usize, Option<Event>)>>,
    next: usize,
}

impl Corrections {
    /// The events that count, of those `received`.
    pub(crate) fn events(&self, received: &[Event]) -> Vec<Event> {
        (0..received.len()).filter_map(|place| self.state(received, place)).collect()
    }

    /// The event at this place, as it counts now.
    pub(crate) fn state(&self, received: &[Event], place: usize) -> Option<Event> {
        match self.piles.get(place).and_then(|pile| pile.last()) {
            None => received.get(place).cloned(),
            Some((_, state)) => state.clone(),
        }
    }

    /// Corrects the events at `places`; says which correction it is.
    pub(crate) fn correct(
        &mut self,
        received: &[Event],
        places: &[usize],
        change: impl Fn(&mut Event) -> bool,
    ) -> usize {
        self.piles.resize(self.piles.len().max(received.len()), Vec::new());
        for &place in places {
            let mut event = self.state(received, place).unwrap();
            let stays = change(&mut event);
            self.piles[place].push((self.next, stays.then_some(event)));
        }
        self.next += 1;
        self.next - 1
    }

    /// Undoes a correction, unless a later one is in force on the same events.
    pub(crate) fn revert(&mut self, correction: usize) -> bool {
        let touched =
            |pile: &&mut Vec<(usize, Option<Event>)>| pile.iter().any(|(by, _)| *by == correction);
        let mut piles: Vec<_> = self.piles.iter_mut().filter(touched).collect();
        if piles.iter().any(|pile| pile.last().is_some_and(|(by, _)| *by != correction)) {
            return false;
        }
        piles.iter_mut().for_each(|pile| {
            pile.pop();
        });
        true
    }
}
