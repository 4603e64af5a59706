//! Random draws from the distributions that workloads are made of.

use fastrand::Rng;

/// An exponentially distributed number with this mean.
pub fn exponential(rng: &mut Rng, mean: f64) -> f64 {
    -mean * (1.0 - rng.f64()).ln()
}

/// A number whose logarithm is normally distributed, with this median; `sigma` is the deviation of the logarithm.
pub fn lognormal(rng: &mut Rng, median: f64, sigma: f64) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * rng.f64()).cos();
    median * (sigma * normal).exp()
}

/// A number of tokens, log-normally distributed, within bounds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it lies within the bounds"
)]
pub fn tokens(rng: &mut Rng, median: f64, sigma: f64, bounds: std::ops::RangeInclusive<u32>) -> u32 {
    let drawn = lognormal(rng, median, sigma).round();
    drawn.clamp(f64::from(*bounds.start()), f64::from(*bounds.end())) as u32
}

/// How often something happens that happens at least once and goes on with the chance `1 - 1 / mean`; at most `most`.
pub fn geometric(rng: &mut Rng, mean: f64, most: u32) -> u32 {
    let mut count = 1;
    while count < most && rng.f64() >= 1.0 / mean {
        count += 1;
    }
    count
}

/// Items of which the first are drawn most often: item `k` in proportion to `1 / (k + 1)^exponent`.
#[derive(Debug)]
pub struct Zipf(Vec<f64>);

impl Zipf {
    /// Over `count` items.
    pub fn new(count: u32, exponent: f64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=count).map(|rank| {
            sum += f64::from(rank).powf(-exponent);
            sum
        });
        Self(sums.collect())
    }

    /// One item.
    pub fn draw(&self, rng: &mut Rng) -> usize {
        let total = self.0.last().copied().unwrap_or(1.0);
        let point = rng.f64() * total;
        self.0
            .partition_point(|sum| *sum < point)
            .min(self.0.len().saturating_sub(1))
    }
}

/// A well mixed number from another one (the finaliser of splitmix64).
pub fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
