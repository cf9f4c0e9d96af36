//! A straight line through points, and how sure its slope is. Pure.

use serde::Serialize;

/// The least-squares line of some points.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Line {
    /// Rise of y by one x.
    pub(crate) slope: f64,
    /// y at x = 0.
    pub(crate) intercept: f64,
    /// Half the width of the slope's 95 % confidence interval; null with fewer than three points.
    pub(crate) slope_plus_minus: Option<f64>,
    /// The same of the intercept.
    pub(crate) intercept_plus_minus: Option<f64>,
}

/// Fits a line; `None` unless two points differ in x.
///
/// The interval assumes points whose errors are independent, so a point has to be one step, not one of many readings
/// of the same step.
pub(crate) fn fit(points: &[(f64, f64)]) -> Option<Line> {
    let count = points.len() as f64;
    if points.len() < 2 {
        return None;
    }
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let square_x: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    if square_x <= 0.0 {
        return None;
    }
    let slope = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / square_x;
    let intercept = mean_y - slope * mean_x;
    let freedom = points.len() - 2;
    let error = (freedom > 0).then(|| {
        let left: f64 = points.iter().map(|(x, y)| (y - intercept - slope * x).powi(2)).sum();
        t_quantile(freedom) * (left / freedom as f64).sqrt()
    });
    Some(Line {
        slope,
        intercept,
        slope_plus_minus: error.map(|error| error / square_x.sqrt()),
        intercept_plus_minus: error.map(|error| error * (1.0 / count + mean_x.powi(2) / square_x).sqrt()),
    })
}

/// The middle of some numbers, which are sorted for it; `None` of none.
pub(crate) fn median(numbers: &mut [f64]) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    let upper = *numbers.get(middle)?;
    if numbers.len() % 2 == 1 {
        return Some(upper);
    }
    Some((numbers.get(middle - 1)? + upper) / 2.0)
}

/// Student's t at 97.5 %: 95 % of the distribution lie between minus and plus it.
fn t_quantile(freedom: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
        2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048,
        2.045, 2.042,
    ];
    // Beyond the table, the first terms of its expansion about the normal distribution's 1.95996.
    let z: f64 = 1.959_964;
    let n = freedom.max(1) as f64;
    let beyond =
        z + (z.powi(3) + z) / (4.0 * n) + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n.powi(2));
    freedom.checked_sub(1).and_then(|index| TABLE.get(index)).copied().unwrap_or(beyond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_straight_line_is_found_exactly() {
        let points: Vec<(f64, f64)> = (1..6).map(|x| (f64::from(x), 64.0 * f64::from(x) + 9.0)).collect();
        let line = fit(&points).unwrap();
        assert!((line.slope - 64.0).abs() < 1e-9 && (line.intercept - 9.0).abs() < 1e-9);
        assert!(line.slope_plus_minus.unwrap() < 1e-9);
    }

    #[test]
    fn the_interval_agrees_with_a_textbook() {
        // x 1..5, y 2 4 5 4 5: slope 0.6, residual sum 2.4, so the slope's error is 3.182 * sqrt(0.8 / 10).
        let line = fit(&[(1.0, 2.0), (2.0, 4.0), (3.0, 5.0), (4.0, 4.0), (5.0, 5.0)]).unwrap();
        assert!((line.slope - 0.6).abs() < 1e-9 && (line.intercept - 2.2).abs() < 1e-9);
        assert!((line.slope_plus_minus.unwrap() - 0.900).abs() < 1e-3, "{line:?}");
        assert!((line.intercept_plus_minus.unwrap() - 2.985).abs() < 1e-3, "{line:?}");
    }

    #[test]
    fn what_cannot_be_known_is_not_made_up() {
        assert_eq!(fit(&[]), None);
        assert_eq!(fit(&[(1.0, 2.0)]), None);
        assert_eq!(fit(&[(1.0, 2.0), (1.0, 4.0)]), None);
        let two = fit(&[(1.0, 2.0), (2.0, 4.0)]).unwrap();
        assert_eq!((two.slope, two.slope_plus_minus), (2.0, None));
    }

    #[test]
    fn quantiles_go_on_beyond_the_table() {
        assert!((t_quantile(31) - 2.040).abs() < 2e-3 && (t_quantile(1_000) - 1.962).abs() < 1e-3);
    }

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&mut []), None);
    }
}
