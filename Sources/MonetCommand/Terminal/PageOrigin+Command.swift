import Foundation
import MonetFoundation

extension PageOrigin {
    /// The origin of a page that this command writes.
    static func ofThisCommand(model: String, corpus: String? = nil) -> PageOrigin {
        var words = CommandLine.arguments
        if !words.isEmpty { words[0] = words[0].lastPathName }
        let command = words.map { word in
            let isPlain = word.unicodeScalars.allSatisfy {
                CharacterSet.alphanumerics.contains($0) || "-_./=:,@+%".unicodeScalars.contains($0)
            }
            return isPlain && !word.isEmpty
                ? word : "'" + word.replacingOccurrences(of: "'", with: "'\\''") + "'"
        }
        return PageOrigin(command: command.joined(separator: " "), model: model, corpus: corpus)
    }
}
