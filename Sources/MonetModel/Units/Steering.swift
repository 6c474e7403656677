/// What is changed in a sequence's passes: units that are forced to fire, directions that are added to hidden values, and
/// values that are replaced.
///
///     var steering = Steering()
///     steering.units = [.init(group: 1, index: 223, score: 3)]
///     var sequence = ForwardSequence(ids)
///     sequence.steering = steering
///
/// A forced expert (i, j) fires as if one more head had routed to it, with ĝ1_i · ĝ2_j = score: score · f_ij(h) is added to
/// the output of every layer of its group, and to its routing score. The model's own heads are left as they are, and strengths
/// of masks apply to it as to any other. A forced neuron's activation is raised by the score.
public struct Steering: Sendable, Equatable {
    /// The positions of a sequence where something is added.
    public struct Positions: Sendable, Equatable {
        /// Ranges of positions, counted from the sequence's first token; nil means all.
        public var ranges: [ClosedRange<Int>]?

        /// Everywhere.
        public static let all = Positions(nil)

        /// Some ranges, or everywhere.
        public init(_ ranges: [ClosedRange<Int>]?) { self.ranges = ranges }

        /// Whether a position is among them.
        public func contains(_ position: Int) -> Bool {
            ranges?.contains { $0.contains(position) } ?? true
        }
    }

    /// A unit that is forced to fire.
    public struct Unit: Sendable, Equatable {
        /// The group, and the unit's index in it.
        public let group: Int
        public let index: Int
        /// The score that is added, above 0.
        public let score: Float
        /// Where.
        public let positions: Positions

        /// Names a unit.
        public init(group: Int, index: Int, score: Float, positions: Positions = .all) {
            (self.group, self.index, self.score, self.positions) = (group, index, score, positions)
        }
    }

    /// A vector that is added to the values at a hook point.
    public struct Direction: Sendable, Equatable {
        /// The hook point, whose values have a row for each token.
        public let point: HookPoint
        /// As many numbers as a token's value there has.
        public let vector: [Float]
        /// What multiplies it.
        public let scale: Float
        /// Where.
        public let positions: Positions

        /// Joins them.
        public init(point: HookPoint, vector: [Float], scale: Float = 1, positions: Positions = .all) {
            (self.point, self.vector, self.scale, self.positions) = (point, vector, scale, positions)
        }
    }

    /// Values that take the place of those at a hook point: an ablation, or values of another pass.
    public struct Replacement: Sendable, Equatable {
        /// What stands in for a token's value.
        public enum Content: Sendable, Equatable {
            /// Zeros.
            case zero
            /// The same numbers for every token, such as a mean over a reference text.
            case row([Float])
            /// Those of the same position in another pass; positions beyond its end keep their own.
            case rows([[Float]])
        }

        /// The hook point.
        public let point: HookPoint
        /// The head whose part is replaced, of a value with heads; nil replaces all of it.
        public let head: Int?
        /// What stands in. Rows are as wide as a token's value, whichever head is replaced; those of attention patterns may
        /// be shorter, for fewer keys.
        public let content: Content
        /// Where.
        public let positions: Positions

        /// Joins them.
        public init(point: HookPoint, head: Int? = nil, content: Content, positions: Positions = .all) {
            (self.point, self.head, self.content, self.positions) = (point, head, content, positions)
        }
    }

    /// Forced units.
    public var units: [Unit] = []
    /// Added vectors.
    public var directions: [Direction] = []
    /// Replaced values; directions are added after them.
    public var replacements: [Replacement] = []

    /// The hook points that it changes.
    public var points: Set<HookPoint> { Set(directions.map(\.point) + replacements.map(\.point)) }

    /// Adds nothing.
    public init() {}

    /// Whether it adds nothing.
    public var isEmpty: Bool { units.isEmpty && directions.isEmpty && replacements.isEmpty }
}

extension MonetLanguageModel {
    /// Checks that a steering fits this model.
    ///
    /// - Throws: `ModelError.invalidInput` naming the unit, hook point or vector.
    public func check(_ steering: Steering) throws {
        func fail(_ reason: String) -> ModelError { .invalidInput(reason: "steering: " + reason) }
        let mostForced = 64
        guard steering.units.count <= mostForced else {
            throw fail("\(steering.units.count) forced \(units.kind.rawValue), at most \(mostForced)")
        }
        for unit in steering.units {
            guard (0..<units.groups).contains(unit.group), (0..<units.unitsPerGroup).contains(unit.index)
            else {
                throw fail(
                    "\(unit.group)/\(unit.index) is none of the \(units.kind.rawValue) 0/0 to "
                        + "\(units.groups - 1)/\(units.unitsPerGroup - 1)")
            }
            guard unit.score.isFinite, unit.score > 0 || units.kind == .neurons else {
                throw fail("\(unit.group)/\(unit.index) has the score \(unit.score), expected one above 0")
            }
        }
        try check(Array(steering.points))
        for direction in steering.directions {
            let width = try rowShape(at: direction.point)?.reduce(1, *) ?? direction.vector.count
            if [.pattern, .g1, .g2].contains(direction.point.kind) {
                throw fail("\(direction.point) holds probabilities, to which nothing can be added")
            }
            guard direction.vector.count == width else {
                throw fail(
                    "a vector of \(direction.vector.count) numbers for \(direction.point), expected \(width)")
            }
            guard direction.scale.isFinite, direction.vector.allSatisfy(\.isFinite) else {
                throw fail("the vector for \(direction.point) has numbers that are not finite")
            }
        }
        for replacement in steering.replacements {
            let point = replacement.point
            let shape = try rowShape(at: point)
            if let head = replacement.head {
                guard let shape, shape.count == 2 || point.kind == .pattern else {
                    throw fail("\(point) has no heads")
                }
                guard (0..<shape[0]).contains(head) else {
                    throw fail("\(point) has the heads 0 to \(shape[0] - 1), not \(head)")
                }
            }
            let rows: [[Float]]
            switch replacement.content {
            case .zero: rows = []
            case .row(let row):
                if point.kind == .pattern {
                    throw fail(
                        "\(point) has no vector for every token: a pattern is as wide as its keys are many")
                }
                rows = [row]
            case .rows(let own): rows = own
            }
            for row in rows {
                guard row.allSatisfy(\.isFinite) else {
                    throw fail("the values for \(point) have numbers that are not finite")
                }
                guard let shape, point.kind != .pattern else { continue }
                guard row.count == shape.reduce(1, *) else {
                    throw fail("\(row.count) numbers for \(point), expected \(shape.reduce(1, *))")
                }
            }
        }
    }

    /// The shape of a token's value at a hook point: `[d]`, or `[heads, width]`; `[heads]` for patterns, whose width is the
    /// number of keys. Nil for points of feed-forward families of other modules.
    public func rowShape(at point: HookPoint) throws -> [Int]? {
        try check([point])
        let c = configuration
        switch point.kind {
        case .q, .z: return [c.attentionHeads, c.headWidth]
        case .k, .v: return [c.keyValueHeads, c.headWidth]
        case .pattern: return [c.attentionHeads]
        case .g1, .g2: return [units.heads, units.perSide ?? 0]
        case .residPre, .residMid, .residPost, .attnOut, .mlpOut, .mlpIn: return [c.hiddenSize]
        default: return nil
        }
    }
}
