//! Owns how gradients are grouped for their way between processes; never touches their values.
//!
//! A bucket holds parameters whose gradients are complete one after another in the backward pass, so it can leave while
//! the pass goes on (Li et al. 2020, arXiv 2006.15704). Sums are elementwise: no grouping changes a bit of a result.

use model_zoo::ParamSpec;

/// Parameters in groups, in the order in which their gradients are complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets {
    members: Vec<Vec<usize>>,
    bucket_of: Vec<usize>,
}

impl Buckets {
    /// Cuts `order`, the parameters in the order of their gradients, into groups of at least `min_bytes` of `f32`
    /// (the last may be smaller).
    #[must_use]
    pub fn new(specs: &[ParamSpec], order: &[usize], min_bytes: u64) -> Self {
        let (mut members, mut bucket_of) = (Vec::new(), vec![0; specs.len()]);
        let (mut open, mut bytes) = (Vec::new(), 0);
        for &param in order {
            let (Some(spec), Some(bucket)) = (specs.get(param), bucket_of.get_mut(param)) else { continue };
            *bucket = members.len();
            open.push(param);
            bytes += (spec.num_elements() * size_of::<f32>()) as u64;
            if bytes >= min_bytes {
                members.push(std::mem::take(&mut open));
                bytes = 0;
            }
        }
        if !open.is_empty() {
            members.push(open);
        }
        Self { members, bucket_of }
    }

    /// Number of buckets.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Number of parameters in all buckets together.
    #[must_use]
    pub fn params(&self) -> usize {
        self.bucket_of.len()
    }

    /// The bucket of a parameter.
    #[must_use]
    pub fn of(&self, param: usize) -> usize {
        self.bucket_of.get(param).copied().unwrap_or_default()
    }

    /// The parameters of a bucket.
    #[must_use]
    pub fn members(&self, bucket: usize) -> &[usize] {
        self.members.get(bucket).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model_zoo::Init;

    #[test]
    fn every_parameter_is_in_one_bucket_and_buckets_follow_the_order() {
        let spec = |(i, size): (usize, &usize)| ParamSpec::new(format!("t{i}"), vec![*size], Init::Ones);
        let specs: Vec<_> = [100, 10, 20, 30, 40].iter().enumerate().map(spec).collect();
        let order = [4, 3, 1, 2, 0];
        let buckets = Buckets::new(&specs, &order, 160);
        assert_eq!(buckets.members, [vec![4], vec![3, 1], vec![2, 0]]);
        assert!(order.iter().all(|&param| buckets.members(buckets.of(param)).contains(&param)));
        assert_eq!(Buckets::new(&specs, &order, 0).len(), 5);
        assert_eq!(Buckets::new(&specs, &order, u64::MAX).members, [order.to_vec()]);
        assert!(Buckets::new(&[], &[], 1).is_empty());
    }
}
