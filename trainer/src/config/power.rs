//! Owns the rules of `power_window` and the way between its keys and the plan; never asks for power.

use super::check::Rules;
use super::error::{ConfigError, Places};
use super::raw::RawPowerWindow;
use crate::power::{Hours, PowerPlan, time_zone};

/// Seconds between two questions to the command.
const DEFAULT_CHECK_EVERY: f64 = 60.0;
/// A longer time between two questions is no watch.
const MAX_CHECK_EVERY: f64 = 86_400.0;

/// What can be wrong with the keys by themselves.
pub(super) fn check(raw: &RawPowerWindow, rules: &Rules<'_>) -> Result<(), ConfigError> {
    if raw.hours.is_none() && raw.command.is_none() {
        let hint = "write `hours`, `command` or both, or delete the block";
        return Err(rules.places.invalid("power_window", "`power_window` says nothing about power", hint));
    }
    rules.above_zero("power_window.check_every", raw.check_every, MAX_CHECK_EVERY, "seconds between two questions")?;
    if raw.command.as_ref().is_some_and(|command| command.trim().is_empty()) {
        let hint = "write a command that ends with 0 while there is power, or delete the line";
        return Err(rules.places.invalid("power_window.command", "`power_window.command` is empty", hint));
    }
    resolve(raw, rules.places).map(|_| ())
}

/// The window as the plan has it.
pub(super) fn resolve(raw: &RawPowerWindow, places: &Places) -> Result<PowerPlan, ConfigError> {
    let hours = raw.hours.iter().flatten().enumerate().map(|(index, text)| {
        let invalid =
            |why: String| places.invalid(&format!("power_window.hours[{index}]"), why, "as in `[\"08:30-17:00\"]`");
        text.parse::<Hours>().map_err(invalid)
    });
    let hours = hours.collect::<Result<Vec<_>, _>>()?;
    // Found out here, not when the first night comes.
    time_zone(raw.time_zone.as_deref()).map_err(|why| {
        places.invalid("power_window.time_zone", why, "or leave it out: the machine's own counts then")
    })?;
    Ok(PowerPlan {
        hours,
        time_zone: raw.time_zone.clone(),
        command: raw.command.clone(),
        check_every: raw.check_every.unwrap_or(DEFAULT_CHECK_EVERY),
    })
}

/// The window with every value written out.
pub(super) fn written(plan: &PowerPlan) -> RawPowerWindow {
    RawPowerWindow {
        hours: (!plan.hours.is_empty()).then(|| plan.hours.iter().map(Hours::to_string).collect()),
        time_zone: plan.time_zone.clone(),
        command: plan.command.clone(),
        check_every: Some(plan.check_every),
    }
}
