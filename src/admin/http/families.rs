//! Families of metrics on their way to the encoder: what a family is called, what it means, and its samples.
//!
//! Every family stands in a table of [`Spec`]s, from which the documentation is checked too.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::proto::{Bucket, Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder as _, TextEncoder};

use crate::metrics::Histogram;

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its full name.
    pub name: &'static str,
    /// What it tells, in one line.
    pub help: &'static str,
    /// Whether it only grows.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
}

/// The types that we have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often something took how long, in seconds.
    Histogram,
}

impl Kind {
    /// The word in the text format.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }

    fn field_type(self) -> MetricType {
        match self {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        }
    }
}

/// The most bytes of a label's value; names are shorter, and made-up ones need not be longer.
const LABEL_MAX: usize = 128;

/// A label's value: shortened if need be, between characters. To be made before values are grouped, since two long ones may become
/// equal.
pub fn label(text: &str) -> String {
    let mut end = text.len().min(LABEL_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// The samples of a family. Samples with equal labels are added up: two series of one name would cost Prometheus the whole scrape.
pub type Samples = BTreeMap<Vec<String>, f64>;

/// Families, as the encoder wants them.
#[derive(Debug, Default)]
pub struct Families(Vec<MetricFamily>);

impl Families {
    /// Adds a family; one without samples is left out, as the format has no way to show it.
    pub fn add(&mut self, spec: &Spec, samples: Samples) {
        let metric = |(values, value): (Vec<String>, f64)| {
            let mut metric = Metric::from_label(labels(spec.labels, values));
            match spec.kind {
                Kind::Counter => {
                    let mut counter = Counter::default();
                    counter.set_value(value);
                    metric.set_counter(counter);
                }
                Kind::Gauge | Kind::Histogram => {
                    let mut gauge = Gauge::default();
                    gauge.set_value(value);
                    metric.set_gauge(gauge);
                }
            }
            metric
        };
        let metrics = samples.into_iter().map(metric).collect();
        self.push(spec, spec.kind.field_type(), metrics);
    }

    /// Adds a family with one sample and no labels.
    pub fn add_one(&mut self, spec: &Spec, value: f64) {
        self.add(spec, Samples::from([(Vec::new(), value)]));
    }

    /// Adds a family of histograms.
    pub fn add_histograms(&mut self, spec: &Spec, samples: BTreeMap<Vec<String>, &Histogram>) {
        let bounds = Histogram::bounds(OCTAVES);
        let metric = |(values, histogram): (Vec<String>, &Histogram)| {
            let mut metric = Metric::from_label(labels(spec.labels, values));
            metric.set_histogram(encoded(histogram, &bounds));
            metric
        };
        let metrics = samples.into_iter().map(metric).collect();
        self.push(spec, spec.kind.field_type(), metrics);
    }

    /// Adds families that somebody else has made.
    pub fn extend(&mut self, families: Vec<MetricFamily>) {
        self.0.extend(families);
    }

    fn push(&mut self, spec: &Spec, kind: MetricType, metrics: Vec<Metric>) {
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(spec.name.to_owned());
        family.set_help(spec.help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }

    /// The text format.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = Vec::new();
        // Writing to a Vec cannot fail, and no family is empty or nameless.
        if let Err(error) = TextEncoder::new().encode(&self.0, &mut text) {
            tracing::error!("metrics: {error}");
        }
        text
    }
}

/// How far apart the bounds of histograms are: each is four times the one before.
const OCTAVES: u32 = 2;

fn encoded(histogram: &Histogram, bounds: &[Duration]) -> prometheus::proto::Histogram {
    let buckets = bounds.iter().zip(histogram.cumulative(bounds));
    let bucket = |(bound, count): (&Duration, u64)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound.as_secs_f64());
        bucket.set_cumulative_count(count);
        bucket
    };
    let mut encoded = prometheus::proto::Histogram::default();
    encoded.set_bucket(buckets.map(bucket).collect());
    encoded.set_sample_count(histogram.count());
    encoded.set_sample_sum(histogram.sum().as_secs_f64());
    encoded
}

fn labels(names: &[&str], values: Vec<String>) -> Vec<LabelPair> {
    debug_assert_eq!(names.len(), values.len());
    let pair = |(name, value): (&&str, String)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value);
        pair
    };
    names.iter().zip(values).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: Spec = Spec {
        name: "a_total",
        help: "What it is.",
        kind: Kind::Counter,
        labels: &["name"],
    };

    fn text(samples: Samples) -> String {
        let mut families = Families::default();
        families.add(&SPEC, samples);
        String::from_utf8(families.encode()).unwrap()
    }

    #[test]
    fn values_are_escaped() {
        let samples = Samples::from([(vec![label("a\"b\\c\nd}é")], 1.5)]);
        let expected = "# HELP a_total What it is.\n# TYPE a_total counter\na_total{name=\"a\\\"b\\\\c\\nd}é\"} 1.5\n";
        assert_eq!(text(samples), expected);
        assert_eq!(text(Samples::new()), "");
    }

    #[test]
    fn buckets_are_cumulative() {
        const TIMES: Spec = Spec {
            name: "t_seconds",
            help: "Times.",
            kind: Kind::Histogram,
            labels: &[],
        };
        let mut histogram = Histogram::default();
        for micros in [3, 100, 1_500_000, 100_000_000] {
            histogram.record(micros);
        }
        let mut families = Families::default();
        families.add_histograms(&TIMES, BTreeMap::from([(vec![], &histogram)]));
        let text = String::from_utf8(families.encode()).unwrap();
        for line in [
            "# TYPE t_seconds histogram",
            "t_seconds_bucket{le=\"0.000016\"} 1",
            "t_seconds_bucket{le=\"0.000256\"} 2",
            "t_seconds_bucket{le=\"67.108864\"} 3",
            "t_seconds_bucket{le=\"+Inf\"} 4",
            "t_seconds_sum 101.500103",
            "t_seconds_count 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let long = "é".repeat(LABEL_MAX);
        assert_eq!(label(&long), "é".repeat(LABEL_MAX / 2));
        assert_eq!(label(&format!("x{long}")).len(), LABEL_MAX - 1);
        assert_eq!(label("short"), "short");
    }
}
