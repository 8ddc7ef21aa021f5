//! The store: files, reads and whole histories against a sorted map.

mod damage;
mod files;
mod history;
mod reads;
mod rig;
mod slot_model;
mod slot_reads;
mod slots;
