import Foundation
import MonetCompute

extension MonetLanguageModel {
    /// Identifies the model with 32 hexadecimal digits, which indices and masks store.
    ///
    /// It covers the shape of the experts and the weights that determine the selection, that is routers
    /// and norms, rounded to bfloat16. A model keeps its fingerprint when its weights are converted,
    /// quantized or packed, and gets another one when it is trained further.
    public var fingerprint: String {
        let c = configuration
        var low = FingerprintHash(seed: 0xcbf2_9ce4_8422_2325)
        var high = FingerprintHash(seed: 0x6c62_272e_07bb_0142)
        for number in [
            c.layerCount, c.hiddenSize, c.vocabularySize,
        ] + c.feedForward.fingerprintNumbers {
            low.add(UInt64(number))
            high.add(UInt64(number))
        }
        for parameter in parameters.all
        where parameter.role == .norm || parameter.role == .router {
            let rounded = parameter.tensor.converted(to: .bfloat16)
            rounded.withUnsafeBytes { bytes in
                var offset = 0
                while offset + 8 <= bytes.count {
                    let word = bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
                    low.add(word)
                    high.add(~word)
                    offset += 8
                }
                for byte in bytes[offset...] { low.add(UInt64(byte)) }
            }
        }
        return String(format: "%016lx%016lx", high.value, low.value)
    }
}

/// FNV-1a over words, with the mixing of each word's high half into the low one.
private struct FingerprintHash {
    private(set) var value: UInt64

    init(seed: UInt64) { value = seed }

    mutating func add(_ word: UInt64) {
        value = (value ^ word) &* 0x100_0000_01b3
        value ^= value >> 29
    }
}
