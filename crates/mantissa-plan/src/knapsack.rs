//! One option for each group, as cheap as possible within a budget: the multiple-choice knapsack problem.
//!
//! It is solved as an integer program by branch and bound. Greedy descent along the lower convex hulls (Kellerer, Pferschy and
//! Pisinger, *Knapsack Problems*, section 11.2.2) gives the solver its first solution, and is what it is checked against.

use good_lp::{
    Expression, ProblemVariables, Solution, SolverModel, WithInitialSolution, WithMipGap,
    constraint, solvers::microlp::microlp, variable,
};

/// The solver stops where no solution can be cheaper by more than this share; without it, proving the last digits of
/// near-equal costs takes most of the time.
const GAP: f32 = 1e-4;

/// What an option costs and loses; neither is negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Item {
    pub(crate) cost: f64,
    pub(crate) loss: f64,
}

/// The least that the groups can lose together; more than the budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Infeasible {
    pub(crate) least: f64,
}

/// For each group, none of them empty, the place of its option in the cheapest selection that loses at most `budget`
/// altogether, to within [`GAP`] of the least cost.
pub(crate) fn cheapest(groups: &[Vec<Item>], budget: f64) -> Result<Vec<usize>, Infeasible> {
    let by_hand = greedy(groups, budget)?;
    let by_program = integer_program(groups, budget, &by_hand);
    let better = by_program.filter(|selection| {
        fits(total(groups, selection).loss, budget)
            && total(groups, selection).cost < total(groups, &by_hand).cost
    });
    Ok(better.unwrap_or(by_hand))
}

pub(crate) fn total(groups: &[Vec<Item>], selection: &[usize]) -> Item {
    let nothing = Item {
        cost: 0.0,
        loss: 0.0,
    };
    let chosen = groups.iter().zip(selection);
    chosen.fold(nothing, |sum, (group, &place)| Item {
        cost: sum.cost + group[place].cost,
        loss: sum.loss + group[place].loss,
    })
}

/// Sums of many losses in another order may differ in their last digits.
fn fits(loss: f64, budget: f64) -> bool {
    loss <= budget * (1.0 + 1e-12)
}

/// The places of the options that are better than any cheaper one, by cost, so that the loss falls; of equals the first.
fn efficient(group: &[Item]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..group.len())
        .filter(|&place| group[place].loss.is_finite() && group[place].cost.is_finite())
        .collect();
    places.sort_by(|&a, &b| {
        let (a, b) = (group[a], group[b]);
        a.cost.total_cmp(&b.cost).then(a.loss.total_cmp(&b.loss))
    });
    let mut least = f64::INFINITY;
    places.retain(|&place| {
        let better = group[place].loss < least;
        least = least.min(group[place].loss);
        better
    });
    places
}

/// Of efficient options by cost, those on the lower convex hull of loss over cost.
fn hull(group: &[Item], efficient: &[usize]) -> Vec<usize> {
    let mut hull: Vec<usize> = Vec::new();
    let slope =
        |a: usize, b: usize| (group[b].loss - group[a].loss) / (group[b].cost - group[a].cost);
    for &place in efficient {
        while let [.., before, last] = hull[..]
            && slope(before, last) >= slope(last, place)
        {
            hull.pop();
        }
        hull.push(place);
    }
    hull
}

/// From the safest selection, the step down a hull that saves most for what it loses, as long as one fits.
pub(crate) fn greedy(groups: &[Vec<Item>], budget: f64) -> Result<Vec<usize>, Infeasible> {
    let hulls: Vec<Vec<usize>> = groups
        .iter()
        .map(|group| hull(group, &efficient(group)))
        .collect();
    let least: f64 = groups
        .iter()
        .zip(&hulls)
        .map(|(group, hull)| {
            hull.last()
                .map_or(f64::INFINITY, |&place| group[place].loss)
        })
        .sum();
    if !fits(least, budget) {
        return Err(Infeasible { least });
    }
    // Every step down every hull: along one hull they save less and less for what they lose, so that in this order a step
    // comes after the one above it.
    let mut steps: Vec<(f64, usize, usize)> = Vec::new();
    for (index, hull) in hulls.iter().enumerate() {
        for rank in 1..hull.len() {
            let (low, high) = (groups[index][hull[rank - 1]], groups[index][hull[rank]]);
            let rate = (high.cost - low.cost) / (low.loss - high.loss);
            steps.push((rate, index, rank));
        }
    }
    steps.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(b.2.cmp(&a.2)));
    let mut ranks: Vec<usize> = hulls.iter().map(|hull| hull.len() - 1).collect();
    let mut loss = least;
    for (_, index, rank) in steps {
        let hull = &hulls[index];
        if ranks[index] != rank {
            continue;
        }
        let more = groups[index][hull[rank - 1]].loss - groups[index][hull[rank]].loss;
        if fits(loss + more, budget) {
            ranks[index] -= 1;
            loss += more;
        }
    }
    let places = hulls.iter().zip(ranks).map(|(hull, rank)| hull[rank]);
    Ok(places.collect())
}

/// One binary variable for each efficient option: one of each group, the losses within the budget, the costs least.
fn integer_program(groups: &[Vec<Item>], budget: f64, first: &[usize]) -> Option<Vec<usize>> {
    if budget <= 0.0 {
        return None;
    }
    let mut problem = ProblemVariables::new();
    let options: Vec<Vec<(usize, good_lp::Variable)>> = groups
        .iter()
        .map(|group| {
            let places = efficient(group);
            let affordable = places
                .into_iter()
                .filter(|&place| fits(group[place].loss, budget));
            affordable
                .map(|place| (place, problem.add(variable().binary())))
                .collect()
        })
        .collect();
    // In units of the budget and of the dearest option: the solver's tolerances are absolute.
    let dearest = groups.iter().flatten().map(|item| item.cost);
    let unit = dearest.fold(f64::MIN_POSITIVE, f64::max);
    let weighed = |weight: &dyn Fn(Item) -> f64| -> Expression {
        let terms = options.iter().zip(groups).flat_map(|(options, group)| {
            options
                .iter()
                .map(move |&(place, variable)| weight(group[place]) * variable)
        });
        terms.sum()
    };
    let cost = weighed(&|item| item.cost / unit);
    let loss = weighed(&|item| item.loss / budget);
    let start = options.iter().zip(first).flat_map(|(options, &first)| {
        options
            .iter()
            .map(move |&(place, variable)| (variable, f64::from(u8::from(place == first))))
    });
    let mut model = problem
        .minimise(cost)
        .using(microlp)
        .with_mip_gap(GAP)
        .ok()?
        .with_initial_solution(start.collect::<Vec<_>>())
        .with(constraint!(loss <= 1.0));
    for options in &options {
        let one: Expression = options.iter().map(|&(_, variable)| variable).sum();
        model = model.with(constraint!(one == 1.0));
    }
    let solution = model.solve().ok()?;
    let chosen = options.iter().map(|options| {
        let chosen = options
            .iter()
            .find(|(_, variable)| solution.value(*variable) > 0.5);
        chosen.map(|&(place, _)| place)
    });
    chosen.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn brute_force(groups: &[Vec<Item>], budget: f64) -> Option<f64> {
        let mut totals = vec![Item {
            cost: 0.0,
            loss: 0.0,
        }];
        for group in groups {
            let sums = totals.iter().flat_map(|sum| {
                group.iter().map(|item| Item {
                    cost: sum.cost + item.cost,
                    loss: sum.loss + item.loss,
                })
            });
            totals = sums.collect();
        }
        let feasible = totals.iter().filter(|sum| fits(sum.loss, budget));
        feasible.map(|sum| sum.cost).reduce(f64::min)
    }

    fn items() -> impl Strategy<Value = Vec<Vec<Item>>> {
        // Losses span the decades that formats do.
        let item = (0.01f64..1.0, -6.0f64..0.0).prop_map(|(cost, exponent)| Item {
            cost,
            loss: 10f64.powf(exponent),
        });
        prop::collection::vec(prop::collection::vec(item, 1..6), 1..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn the_integer_program_is_at_least_as_good_as_greedy_and_as_good_as_trying_all(
            groups in items(),
            exponent in -4.0f64..0.5,
        ) {
            let budget = 10f64.powf(exponent);
            match brute_force(&groups, budget) {
                None => {
                    let least = cheapest(&groups, budget).unwrap_err().least;
                    prop_assert!(least > budget);
                    prop_assert!(cheapest(&groups, least).is_ok());
                }
                Some(best) => {
                    let by_hand = total(&groups, &greedy(&groups, budget).unwrap());
                    let found = total(&groups, &cheapest(&groups, budget).unwrap());
                    prop_assert!(fits(by_hand.loss, budget) && fits(found.loss, budget));
                    prop_assert!(found.cost <= by_hand.cost);
                    prop_assert!(found.cost <= best * (1.0 + 1.01 * f64::from(GAP)), "{} {best}", found.cost);
                    let program = integer_program(&groups, budget, &greedy(&groups, budget).unwrap());
                    prop_assert!(program.is_some());
                }
            }
        }
    }

    #[test]
    fn greedy_alone_would_not_do() {
        // The best step by rate leaves no room for the one that saves more.
        let item = |cost, loss| Item { cost, loss };
        let groups = [
            vec![item(1.0, 0.0), item(0.8, 0.1)],
            vec![item(1.0, 0.0), item(0.2, 1.0)],
        ];
        assert_eq!(total(&groups, &greedy(&groups, 1.0).unwrap()).cost, 1.8);
        assert!((total(&groups, &cheapest(&groups, 1.0).unwrap()).cost - 1.2).abs() < 1e-9);
        assert_eq!(cheapest(&groups, 0.0).unwrap(), [0, 0]);
        let lossy = [
            vec![item(0.1, 0.5)],
            vec![item(0.1, f64::INFINITY), item(1.0, 0.25)],
        ];
        assert_eq!(cheapest(&lossy, 0.5), Err(Infeasible { least: 0.75 }));
    }
}
