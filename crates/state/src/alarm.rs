//! Alarms: which member has run out of space or found itself damaged. Replicated, so that the whole
//! cluster refuses alike. Not here: who raises them, and what they forbid (`apply`).

use std::collections::BTreeSet;

use bytes::Bytes;
use etch_api::pb::etcdserverpb::{AlarmMember, AlarmType};
use etch_disk::backend::{Batch, Bucket, Snapshot};
use prost::Message;

/// The alarms that are up.
#[derive(Clone, Debug, Default)]
pub struct Alarms {
    /// By kind, then by member: the order in which they are listed.
    up: BTreeSet<(i32, u64)>,
}

impl Alarms {
    /// Reads the alarms from the committed file.
    pub fn load(snapshot: &Snapshot) -> std::io::Result<Self> {
        let mut alarms = Self::default();
        let mut rows = snapshot.cursor(Bucket::Alarm)?;
        while let Some((key, _)) = rows.next()? {
            let row = AlarmMember::decode(key).map_err(|e| {
                std::io::Error::new(std::io::ErrorKind::InvalidData, format!("an alarm's row: {e}"))
            })?;
            alarms.up.insert((row.alarm, row.member_id));
        }
        Ok(alarms)
    }

    /// True if any member has this alarm up.
    pub fn is_up(&self, kind: AlarmType) -> bool {
        self.up.range((kind as i32, 0)..=(kind as i32, u64::MAX)).next().is_some()
    }

    /// The alarms of a kind; of every kind for `NONE`.
    pub fn list(&self, kind: AlarmType) -> Vec<AlarmMember> {
        let wanted = |alarm: i32| kind == AlarmType::None || alarm == kind as i32;
        self.up
            .iter()
            .filter(|(alarm, _)| wanted(*alarm))
            .map(|&(alarm, member_id)| AlarmMember { member_id, alarm })
            .collect()
    }

    /// Raises an alarm. It is in the answer whether it was up before or not.
    pub(crate) fn activate(
        &mut self,
        member_id: u64,
        kind: AlarmType,
        batch: &mut Batch,
    ) -> AlarmMember {
        let row = AlarmMember { member_id, alarm: kind as i32 };
        if self.up.insert((row.alarm, member_id)) {
            batch.put(Bucket::Alarm, Bytes::from(row.encode_to_vec()), Bytes::new());
        }
        row
    }

    /// Takes an alarm down. `None` if it was not up.
    pub(crate) fn deactivate(
        &mut self,
        member_id: u64,
        kind: AlarmType,
        batch: &mut Batch,
    ) -> Option<AlarmMember> {
        let row = AlarmMember { member_id, alarm: kind as i32 };
        self.up.remove(&(row.alarm, member_id)).then(|| {
            batch.delete(Bucket::Alarm, Bytes::from(row.encode_to_vec()));
            row
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_up_until_its_own_member_takes_it_down() {
        let (mut alarms, mut batch) = (Alarms::default(), Batch::default());
        alarms.activate(7, AlarmType::Nospace, &mut batch);
        alarms.activate(7, AlarmType::Nospace, &mut batch);
        assert_eq!(alarms.list(AlarmType::None).len(), 1);
        assert!(alarms.is_up(AlarmType::Nospace) && !alarms.is_up(AlarmType::Corrupt));
        assert_eq!(alarms.deactivate(8, AlarmType::Nospace, &mut batch), None);
        assert!(alarms.deactivate(7, AlarmType::Nospace, &mut batch).is_some());
        assert!(!alarms.is_up(AlarmType::Nospace));
    }
}
