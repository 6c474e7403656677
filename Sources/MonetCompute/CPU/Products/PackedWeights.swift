import MonetFoundation
import Synchronization

/// Weights as they were packed for integer products, kept for the next product with them.
///
/// A pass of a thousand rows packs every matrix of the model in about a tenth of its time. Only bfloat16 weights are
/// kept, because no optimizer changes them in place. An entry holds its weights, so that their address is not given
/// to others.
final class PackedWeights: Sendable {
    private struct Key: Hashable {
        let storage: ObjectIdentifier
        let byteOffset: Int
        let shape: [Int]
    }

    private struct Entry {
        let weight: Tensor
        let integers: PackedIntegers
    }

    private struct State {
        var entries: [Key: Entry] = [:]
        var room: Int
    }

    private let state: Mutex<State>

    /// Keeps up to `byteCount` bytes; matrices beyond that are packed for every product.
    init(byteCount: Int = MemoryLimits.available / 4) {
        state = Mutex(State(room: byteCount))
    }

    /// The packed weight, made by `pack` when it is first asked for; nil if it is not to be kept.
    func integers(of weight: Tensor, pack: () throws -> PackedIntegers) rethrows -> PackedIntegers? {
        guard weight.dtype == .bfloat16 else { return nil }
        let key = Key(
            storage: ObjectIdentifier(weight.storage), byteOffset: weight.byteOffset, shape: weight.shape)
        // Packed integers are as wide as bfloat16, and their scales, panels and blocks are rounded up.
        let bytes = weight.byteCount + weight.byteCount / 8
        let (kept, hasRoom) = state.withLock { ($0.entries[key]?.integers, $0.room >= bytes) }
        if let kept { return kept }
        guard hasRoom else { return nil }
        let integers = try pack()
        state.withLock { state in
            if state.entries.updateValue(Entry(weight: weight, integers: integers), forKey: key) == nil {
                state.room -= bytes
            }
        }
        return integers
    }
}
