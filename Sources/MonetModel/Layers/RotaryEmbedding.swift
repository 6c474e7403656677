import Foundation
import MonetCompute

/// Rotary position embedding in the half-split layout, with Llama's linear and dynamic scaling.
struct RotaryEmbedding: Sendable {
    let headWidth: Int
    let theta: Double
    let scaling: MonetConfiguration.RopeScaling?
    let maxPositionEmbeddings: Int

    init(_ configuration: MonetConfiguration) {
        headWidth = configuration.headWidth
        theta = configuration.ropeTheta
        scaling = configuration.ropeScaling
        maxPositionEmbeddings = configuration.maxPositionEmbeddings
    }

    /// Whether frequencies depend on the length, so that rotated keys cannot be reused.
    var changesWithLength: Bool {
        if case .dynamic = scaling { true } else { false }
    }

    /// Cosines and sines for positions `0..<length`, `[length, headWidth / 2]`.
    func table(length: Int) -> RotaryTable {
        let half = headWidth / 2
        var base = theta
        var stretch = 1.0
        switch scaling {
        case nil: break
        case .linear(let factor): stretch = factor
        case .dynamic(let factor):
            if length > maxPositionEmbeddings, headWidth > 2 {
                let ratio = factor * Double(length) / Double(maxPositionEmbeddings) - (factor - 1)
                base *= pow(ratio, Double(headWidth) / Double(headWidth - 2))
            }
        }
        // Angles are computed in float32, as in PyTorch, so that results agree at distant positions.
        let frequencies = (0..<half).map { Float(1 / pow(base, Double(2 * $0) / Double(headWidth))) }
        var cosine = [Float]()
        var sine = [Float]()
        cosine.reserveCapacity(length * half)
        sine.reserveCapacity(length * half)
        for position in 0..<length {
            let scaled = Float(position) / Float(stretch)
            for frequency in frequencies {
                let angle = Double(scaled * frequency)
                cosine.append(Float(cos(angle)))
                sine.append(Float(sin(angle)))
            }
        }
        return RotaryTable(
            cosine: Tensor(cosine, shape: [length, half]), sine: Tensor(sine, shape: [length, half]))
    }
}
