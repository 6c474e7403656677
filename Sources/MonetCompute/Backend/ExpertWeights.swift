/// The weights of an expert layer in the order of its plan: tensors, or what stands for them (a checkpoint's
/// parameters, variables on a tape, places for gradients).
public struct ExpertWeights<Element> {
    /// σ(U x + b) of one side.
    public struct Up {
        /// `[E · units, d]`.
        public var weight: Element
        /// `[E · units]`.
        public var bias: Element

        /// Joins weight and bias.
        public init(weight: Element, bias: Element) {
            self.weight = weight
            self.bias = bias
        }
    }

    /// What one side's experts write to their part of the output.
    public struct Down {
        /// The matrices, in one of two layouts.
        public enum Matrices {
            /// As checkpoints are published: one `[width, E · units]` for every source, an expert's weights
            /// in columns.
            case columns([Element])
            /// An expert's rows together, `[E · sources · units, width]`: those of its first source's units,
            /// then of its second's.
            case rows(Element)
        }

        public var matrices: Matrices
        /// `[E, width]`.
        public var bias: Element

        /// Joins matrices and bias.
        public init(_ matrices: Matrices, bias: Element) {
            self.matrices = matrices
            self.bias = bias
        }
    }

    /// What the weights are multiplied with.
    public let plan: ExpertPlan
    /// In the order of `plan.hidden`.
    public var up: [Up]
    /// In the order of `plan.projections`.
    public var down: [Down]

    /// Joins a plan and weights in its order.
    public init(_ plan: ExpertPlan, up: [Up], down: [Down]) {
        self.plan = plan
        self.up = up
        self.down = down
    }

    /// The same weights as something else.
    public func map<Other>(_ change: (Element) throws -> Other) rethrows -> ExpertWeights<Other> {
        ExpertWeights<Other>(
            plan, up: try up.map { .init(weight: try change($0.weight), bias: try change($0.bias)) },
            down: try down.map { down in
                let matrices: ExpertWeights<Other>.Down.Matrices =
                    switch down.matrices {
                    case .columns(let list): .columns(try list.map(change))
                    case .rows(let rows): .rows(try change(rows))
                    }
                return .init(matrices, bias: try change(down.bias))
            })
    }

    /// Every element, up-projections first.
    public var all: [Element] {
        up.flatMap { [$0.weight, $0.bias] }
            + down.flatMap { down -> [Element] in
                switch down.matrices {
                case .columns(let list): list + [down.bias]
                case .rows(let rows): [rows, down.bias]
                }
            }
    }
}

extension ExpertWeights: Sendable where Element: Sendable {}
extension ExpertWeights.Up: Sendable where Element: Sendable {}
extension ExpertWeights.Down: Sendable where Element: Sendable {}
extension ExpertWeights.Down.Matrices: Sendable where Element: Sendable {}

/// What an expert layer keeps of its forward pass for the gradient, in the form of the device that made it.
public struct ExpertActivations: Sendable {
    /// Only the device that made it reads it.
    public let content: any Sendable

    /// Wraps a device's activations.
    public init(_ content: any Sendable) {
        self.content = content
    }
}

/// Weights in whatever form a device runs them fastest for inference.
public struct PreparedWeights: Sendable {
    /// Only the device that made it reads it.
    public let content: any Sendable

    /// Wraps a device's form of weights.
    public init(_ content: any Sendable) {
        self.content = content
    }
}

/// Where an expert layer's gradient adds what belongs to its inputs.
public struct ExpertGradient: Sendable {
    /// `[tokens, d]`.
    public var x: Tensor
    /// `[tokens, heads, experts]`, left and right.
    public var left: Tensor
    public var right: Tensor

    /// Names the tensors to add into.
    public init(x: Tensor, left: Tensor, right: Tensor) {
        self.x = x
        self.left = left
        self.right = right
    }
}
