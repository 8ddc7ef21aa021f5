//! Operation codes: stable numbers that are never given out twice.

macro_rules! opcodes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// What an operation asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum OpCode {
            $($(#[$doc])* $name = $code,)*
        }

        impl OpCode {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Stable number.
            #[must_use]
            pub fn code(self) -> u8 {
                match self { $(Self::$name => $code,)* }
            }

            /// The operation with that number.
            #[must_use]
            pub fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }

            /// Name in documents, logs and counters.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

opcodes! {
    /// Opens a connection; the first operation on it, and once only.
    Hello = 1, "hello";
    /// Nothing; shows that the other side lives.
    Ping = 2, "ping";
    /// The server's state, for a person or a monitor.
    Status = 3, "status";
    /// Numbers and types of the topics, tables, maps and handlers of an app.
    Describe = 4, "describe";
    /// Loads an app file.
    AppLoad = 5, "app_load";
    /// Lists apps.
    AppList = 6, "app_list";
    /// Deletes an app.
    AppDelete = 7, "app_delete";
    /// Lists topics.
    TopicList = 8, "topic_list";
    /// Waits until nothing is on its way any more that an app was given before.
    AppSettle = 9, "app_settle";
    /// A step of a backup of the data directory.
    Backup = 10, "backup";
    /// Moves a slot to another shard.
    MoveSlot = 11, "move_slot";
    /// Pauses a subscription, or resumes it. Version 2 of the protocol.
    SubscriptionPause = 12, "subscription_pause";
    /// Lists the subscriptions of an app. Version 2 of the protocol.
    SubscriptionList = 13, "subscription_list";
    /// The versions of an app that are kept, or the file of one.
    AppVersions = 14, "app_versions";
    /// Builds tables anew by running their subscriptions again, tells how far that is, or gives it up. Version 2 of the protocol.
    AppReplay = 15, "app_replay";
    /// Appends an event to a topic.
    Produce = 16, "produce";
    /// Reads events of one lane.
    Read = 17, "read";
    /// Appends records of a bounded input to a topic.
    Ingest = 18, "ingest";
    /// Says where a lane begins and ends, and where it was at a time.
    Offsets = 19, "offsets";
    /// Appends a batch of events to one lane. Version 2 of the protocol.
    Append = 20, "append";
    /// Reads batches of one lane. Version 2 of the protocol.
    Fetch = 21, "fetch";
    /// Reads the value of a grain.
    Get = 32, "get";
    /// Sets the value of a grain.
    Put = 33, "put";
    /// Deletes a grain: its value, its maps and its timers.
    Delete = 34, "delete";
    /// Reads one entry of a map of a grain.
    MapGet = 35, "map_get";
    /// Sets one entry of a map of a grain.
    MapPut = 36, "map_put";
    /// Deletes one entry of a map of a grain.
    MapDelete = 37, "map_delete";
    /// Reads entries of a map of a grain, in key order.
    Range = 38, "range";
    /// Reads grains of a table, in key order.
    Scan = 39, "scan";
    /// Lists the parked grains of a table, in key order. Version 2 of the protocol.
    ParkedList = 40, "parked_list";
    /// Says why a grain is parked and what waits for it. Version 2 of the protocol.
    ParkedShow = 41, "parked_show";
    /// Says why a grain does not move. Version 2 of the protocol.
    Why = 42, "why";
    /// Deletes entries of a map of a grain, from a key to before another. Version 2 of the protocol.
    MapDeleteRange = 43, "map_delete_range";
    /// Changes a value or a map entry if it is as expected. Version 2 of the protocol.
    CompareSet = 44, "compare_set";
    /// Reads a value or a map entry with its version, perhaps after an event. Version 2 of the protocol.
    GetVersioned = 45, "get_versioned";
    /// Reads the grains of a table whose JSON values match a filter, in key order. Version 2 of the protocol.
    Query = 46, "query";
    /// Waits for changes of grains of a table. Version 2 of the protocol.
    Watch = 47, "watch";
    /// Runs a handler of a grain and waits for its reply.
    Invoke = 48, "invoke";
    /// Lets a parked grain run again. Version 2 of the protocol.
    ParkedRetry = 49, "parked_retry";
    /// Gives up the input that waits first for a parked grain. Version 2 of the protocol.
    ParkedSkip = 50, "parked_skip";
    /// Puts another payload in the place of that of the input which waits first for a parked grain. Version 2 of the protocol.
    ParkedEdit = 51, "parked_edit";
    /// Fills a position of the session that will not be used.
    Void = 64, "void";
}

impl OpCode {
    /// The version of the protocol that has it first.
    #[must_use]
    pub fn since(self) -> u16 {
        match self {
            Self::Append | Self::Fetch => 2,
            Self::ParkedList | Self::ParkedShow | Self::ParkedRetry | Self::ParkedSkip | Self::ParkedEdit => 2,
            Self::Why | Self::SubscriptionPause | Self::SubscriptionList => 2,
            Self::MapDeleteRange | Self::CompareSet | Self::GetVersioned | Self::Query | Self::Watch => 2,
            _ => 1,
        }
    }

    /// Whether the operation takes a position of the session and so happens at most once however often it is sent.
    #[must_use]
    pub fn is_sequenced(self) -> bool {
        matches!(
            self,
            Self::Produce
                | Self::Append
                | Self::Put
                | Self::Delete
                | Self::MapPut
                | Self::MapDelete
                | Self::MapDeleteRange
                | Self::CompareSet
                | Self::Invoke
                | Self::ParkedRetry
                | Self::ParkedSkip
                | Self::ParkedEdit
                | Self::Void
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_rise() {
        for code in OpCode::ALL {
            assert_eq!(OpCode::from_code(code.code()), Some(*code));
        }
        assert!(OpCode::ALL.windows(2).all(|pair| pair[0].code() < pair[1].code()));
        assert_eq!(OpCode::from_code(0), None);
    }
}
