import MonetFoundation

extension Steering.Positions {
    /// Reads positions as `0-4,7,9-`, where `9-` means all from 9 on.
    ///
    /// - Throws: `ModelError.invalidInput` for another form.
    public init(parsing text: some StringProtocol) throws {
        self.init(
            try text.split(separator: ",", omittingEmptySubsequences: false).map { part in
                let ends = part.split(separator: "-", omittingEmptySubsequences: false)
                let first = ends.first.flatMap { Int($0) }
                let last = ends.count == 2 ? (ends[1].isEmpty ? Int.max - 1 : Int(ends[1])) : first
                guard (1...2).contains(ends.count), let first, let last, first >= 0, last >= first else {
                    throw ModelError.invalidInput(
                        reason: "'\(part.prefix(40))' are no positions, expected 3, 0-4 or 7-")
                }
                return first...last
            })
    }
}

extension Steering.Direction {
    /// Reads the only tensor of a safetensors file as a vector.
    ///
    /// - Throws: `ModelError.invalidInput` for several tensors or numbers that are not real, and what reading throws.
    public static func vector(contentsOfFile path: String) throws -> [Float] {
        let content = try SafetensorsFile(path: path)
        guard content.entries.count == 1, let entry = content.entries.first else {
            throw ModelError.invalidInput(
                reason: "\(path): it has \(content.entries.count) tensors, expected one, the vector")
        }
        let tensor = try content.tensor(entry.name)
        guard tensor.dtype.isFloatingPoint else {
            throw ModelError.invalidInput(
                reason: "\(path): tensor \"\(entry.name)\" is \(tensor.dtype.rawValue), expected real numbers"
            )
        }
        return tensor.floats()
    }
}

extension Steering {
    /// Reads forced units and directions as requests and lines of prompts give them:
    ///
    /// - `units`: `{"1/223": 3, "0/5": {"score": 2, "positions": "0-4,7-"}}`;
    /// - `directions`: `[{"hook": "blocks.5.hook_resid_post", "vector": [0.1, …], "scale": 2, "positions": "3-"}]`, or with
    ///   `"file"`, a safetensors file, in place of `"vector"` where `readsFiles` allows it;
    /// - `replacements`: the same without `scale`, with `"head"` for one head alone, and zeros where there is no vector.
    ///
    /// - Throws: `ModelError.invalidInput` naming the entry.
    public init(
        units: JSONValue? = nil, directions: JSONValue? = nil, replacements: JSONValue? = nil,
        readsFiles: Bool = false
    ) throws {
        self.init()
        func fail(_ reason: String) -> ModelError { .invalidInput(reason: reason) }
        func positions(_ value: JSONValue?) throws -> Positions {
            guard let value, !value.isNull else { return .all }
            guard let text = value.stringValue ?? value.intValue.map(String.init) else {
                throw fail("\"positions\" is \(value.serialized().prefix(40)), expected text such as 0-4,7-")
            }
            return try Positions(parsing: text)
        }
        func float(_ value: JSONValue?) -> Float? { value?.doubleValue.map { Float($0) } }
        func onlyKeys(_ value: JSONValue, _ keys: [String], _ what: String) throws {
            guard let members = value.members else { throw fail("\(what) is no object") }
            if let unknown = members.first(where: { !keys.contains($0.key) }) {
                throw fail("\(what) has the key \"\(unknown.key)\", expected \(keys.joined(separator: ", "))")
            }
        }
        if let units, !units.isNull {
            guard let members = units.members else {
                throw fail("steer is no object, expected {\"1/223\": 3}")
            }
            for member in members {
                guard let (group, unit) = UnitLayout.numbers(of: member.key) else {
                    throw fail("steer has the key \"\(member.key.prefix(40))\", expected GROUP/EXPERT")
                }
                if member.value.members != nil {
                    try onlyKeys(member.value, ["score", "positions"], "steer.\(member.key)")
                }
                guard let score = float(member.value) ?? float(member.value["score"]) else {
                    throw fail("steer.\(member.key) has no score, expected a number")
                }
                self.units.append(
                    Unit(
                        group: group, index: unit, score: score,
                        positions: try positions(member.value["positions"])))
            }
        }
        /// The objects of a list, with their hook points.
        func items(_ value: JSONValue?, _ list: String, _ keys: [String]) throws -> [(
            name: String, json: JSONValue, point: HookPoint
        )] {
            guard let value, !value.isNull else { return [] }
            guard let items = value.arrayValue else { throw fail("\(list) is no list") }
            return try items.enumerated().map { place, item in
                let name = "\(list)[\(place)]"
                try onlyKeys(
                    item, ["hook", "positions", "vector"] + keys + (readsFiles ? ["file"] : []), name)
                guard let point = item["hook"]?.stringValue.flatMap({ HookPoint($0) }) else {
                    throw fail("\(name).hook is no hook point, expected one like blocks.5.hook_resid_post")
                }
                return (name, item, point)
            }
        }
        func vector(_ item: JSONValue, _ name: String) throws -> [Float] {
            if let file = item["file"]?.stringValue { return try Direction.vector(contentsOfFile: file) }
            let numbers = item["vector"]?.arrayValue
            let vector = numbers?.compactMap { float($0) } ?? []
            guard let numbers, numbers.count == vector.count else {
                throw fail("\(name).vector is no list of numbers")
            }
            return vector
        }
        for (name, item, point) in try items(directions, "directions", ["scale"]) {
            guard let scale = item["scale"] == nil ? 1 : float(item["scale"]) else {
                throw fail("\(name).scale is no number")
            }
            self.directions.append(
                Direction(
                    point: point, vector: try vector(item, name), scale: scale,
                    positions: try positions(item["positions"])))
        }
        for (name, item, point) in try items(replacements, "replace", ["head"]) {
            let head = item["head"]?.intValue
            if let value = item["head"], head == nil {
                throw fail("\(name).head is \(value.serialized().prefix(40)), expected a number")
            }
            let isZero = item["vector"] == nil && item["file"] == nil
            self.replacements.append(
                Replacement(
                    point: point, head: head, content: isZero ? .zero : .row(try vector(item, name)),
                    positions: try positions(item["positions"])))
        }
    }
}
