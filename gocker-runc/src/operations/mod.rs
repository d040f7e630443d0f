//! The runtime process: one file for each operation on a container.

pub(crate) mod activation;
pub(crate) mod checkpoint;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod exec_process;
pub(crate) mod exec_user;
pub(crate) mod features;
mod id_mapping;
pub(crate) mod images;
mod images_owner;
pub(crate) mod kill;
pub(crate) mod list;
mod mount_points;
pub(crate) mod pause;
mod prepare;
pub(crate) mod ps;
pub(crate) mod restore;
pub(crate) mod run;
mod spawn;
pub(crate) mod start;
mod stats_report;
pub(crate) mod status;
mod undo;
mod unserved;
pub(crate) mod update;
mod user_namespace;

use crate::cgroups::Record;

/// `state.json` as this program writes it.
pub(crate) type State = crate::container::state::State<Record>;
