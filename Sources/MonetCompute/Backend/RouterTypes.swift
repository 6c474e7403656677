/// A router side's normalization statistics, `[heads]` each.
public struct RouterStatistics: Sendable {
    /// Mean of the logits.
    public var mean: Tensor
    /// Variance of the logits, biased.
    public var variance: Tensor

    /// Joins one mean and variance a head.
    public init(mean: Tensor, variance: Tensor) {
        self.mean = mean
        self.variance = variance
    }
}

/// What decides a router side's selection (section 3 of the paper): with n = (z − mean) / √(variance + epsilon),
/// experts with n ≥ min(threshold, max n).
public struct RouterSelectionRule: Sendable {
    /// Statistics of the logits.
    public let statistics: RouterStatistics
    /// Added to the variance.
    public let epsilon: Float
    /// Normalized value from which an expert is selected.
    public let threshold: Float

    /// Collects the numbers.
    public init(statistics: RouterStatistics, epsilon: Float, threshold: Float) {
        self.statistics = statistics
        self.epsilon = epsilon
        self.threshold = threshold
    }
}

/// A router for inference: both sides' projections and rules.
public struct RouterWeights: Sendable {
    /// One side.
    public struct Side: Sendable {
        /// `[heads · experts, d]`.
        public let weight: Tensor
        /// Running statistics and threshold.
        public let rule: RouterSelectionRule
        /// The weight rounded to rows of int8 and a bound on each row's error, where the checkpoint has
        /// them: a device may use it to leave out rows that cannot be selected.
        public let rounded: RoundedRouter?

        /// Joins projection and rule.
        public init(weight: Tensor, rule: RouterSelectionRule, rounded: RoundedRouter? = nil) {
            self.weight = weight
            self.rule = rule
            self.rounded = rounded
        }
    }

    /// Left, then right.
    public let sides: [Side]
    /// Routing heads, H.
    public let heads: Int

    /// Joins both sides.
    public init(left: Side, right: Side, heads: Int) {
        sides = [left, right]
        self.heads = heads
    }
}

/// A router's weights rounded to int8, with what that changes.
///
/// A row's product with x differs from that of its rounded form by at most ‖row − rounded‖ · ‖x‖
/// (Cauchy–Schwarz).
public struct RoundedRouter: Sendable {
    /// `[heads · experts, d]`, rows of int8.
    public let rows: Tensor
    /// Bound on what a row's product can differ by, for ‖x‖ = 1, `[heads · experts]`.
    public let bounds: Tensor

    /// Joins both.
    public init(rows: Tensor, bounds: Tensor) {
        self.rows = rows
        self.bounds = bounds
    }
}

/// Which probabilities the uniformity loss averages.
public enum UniformitySource: String, Sendable, Codable, CaseIterable {
    /// Those after the selection, the paper's text read literally.
    case selected
    /// A softmax over all logits: also an expert that nothing selects gets a gradient.
    case full
}

/// Auxiliary losses of one router side and how its experts are used.
public struct RouterObjective: Sendable {
    /// This side's shares of equations 16 and 17, `−1/(2HE) Σ log p` and `mean 1/(2H) Σ (1 − max g)`, `[2]`.
    public let losses: Tensor
    /// Mean probability of each expert over the tokens, from the uniformity source, `[heads, experts]`.
    public let meanProbability: Tensor
    /// How many tokens selected each expert, `[heads, experts]`, exact up to 2²⁴.
    public let selectionCounts: Tensor
    /// Tokens.
    public let tokens: Int
    /// Below this mean probability, the logarithm is clamped and its gradient is zero.
    public static let smallestProbability: Float = 1e-8

    /// Collects the results.
    public init(losses: Tensor, meanProbability: Tensor, selectionCounts: Tensor, tokens: Int) {
        self.losses = losses
        self.meanProbability = meanProbability
        self.selectionCounts = selectionCounts
        self.tokens = tokens
    }

    /// The same with other mean probabilities.
    func of(meanProbability: Tensor) -> RouterObjective {
        RouterObjective(
            losses: losses, meanProbability: meanProbability, selectionCounts: selectionCounts, tokens: tokens
        )
    }
}
