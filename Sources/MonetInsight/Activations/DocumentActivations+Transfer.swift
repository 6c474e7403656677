import Foundation
import MonetModel
import MonetProcesses

extension ActivationReader {
    /// Documents' activations as bytes, for another process that has the documents.
    func encoded(_ batch: [DocumentActivations]) -> Data {
        var encoder = NumberEncoder()
        for document in batch {
            encoder.append(document.scores.tokens)
            encoder.append(document.scores.groups)
            encoder.append(document.scores.units)
            encoder.append(document.scores.scores)
            for point in selection.hooks {
                encoder.append(document.values[point]?.shape ?? [])
                encoder.append(document.values[point]?.values ?? [])
            }
        }
        return encoder.data
    }

    /// The same read again.
    ///
    /// - Throws: `ProcessError.unexpectedAnswer`.
    func decoded(_ data: Data, _ batch: [Int], rank: Int) throws -> [DocumentActivations] {
        var decoder = NumberDecoder(data, rank: rank)
        return try batch.map { document in
            var scores = ScoreList()
            scores.tokens = try decoder.next(Int32.self)
            scores.groups = try decoder.next(Int32.self)
            scores.units = try decoder.next(Int32.self)
            scores.scores = try decoder.next(Float.self)
            var values: [HookPoint: (values: [Float], shape: [Int])] = [:]
            for point in selection.hooks {
                let shape = try decoder.next(Int.self)
                values[point] = (try decoder.next(Float.self), shape)
            }
            let counts = [scores.tokens.count, scores.groups.count, scores.units.count]
            guard counts.allSatisfy({ $0 == scores.count }) else {
                throw ProcessError.unexpectedAnswer(
                    rank: rank, expected: "columns of one length", found: "\(counts), \(scores.count)")
            }
            return DocumentActivations(
                document: document, tokens: documents.tokens(document), scores: scores, values: values)
        }
    }
}
