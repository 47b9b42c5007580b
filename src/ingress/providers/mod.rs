//! The signature schemes of all providers: one file each, one line in `PROVIDERS`.

mod bearer;
mod discord;
mod github;
mod gitlab;
mod grafana;
mod hmac;
mod linear;
mod paddle;
mod pagerduty;
mod shopify;
mod slack;
mod standard;
mod stripe;
mod terraform;
mod twilio;

#[cfg(test)]
mod tests;

use super::provider::Provider;

/// Every signature scheme that `verify` can name. A new provider adds one line here.
pub static PROVIDERS: &[&dyn Provider] = &[
    &bearer::Bearer,
    &discord::Discord,
    &github::GitHub,
    &gitlab::GitLab,
    &grafana::Grafana,
    &hmac::CustomHmac,
    &linear::Linear,
    &paddle::Paddle,
    &pagerduty::PagerDuty,
    &shopify::Shopify,
    &slack::Slack,
    &standard::StandardWebhooks,
    &stripe::Stripe,
    &terraform::Terraform,
    &twilio::Twilio,
];

/// A signature scheme by the name that `verify` uses.
pub fn provider(name: &str) -> Option<&'static dyn Provider> {
    PROVIDERS.iter().copied().find(|p| p.name() == name)
}
