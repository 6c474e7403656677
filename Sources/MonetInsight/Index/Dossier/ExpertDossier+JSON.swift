import MonetFoundation

extension ExpertDossier {
    /// The dossier as JSON.
    public func json() -> JSONValue {
        [
            "expert": .string(expert.description),
            "left": halves.map { JSONValue.integer($0.left) } ?? .null,
            "right": halves.map { JSONValue.integer($0.right) } ?? .null,
            "layers": .array(layers.map { .integer($0) }), "mean": .number(mean),
            "frequency": .number(frequency), "count": .integer(count), "max": .number(max),
            "token_concentration": .number(tokenConcentration),
            "histogram": [
                "upper_ends": .array(histogramEnds.map { .number($0) }),
                "counts": .array(histogram.map { .integer($0) }),
            ],
            "labels": .object(labels.map { .init($0.set, $0.json()) }),
            "activations": .array(activations.map { $0.json() }), "near_duplicates": .integer(duplicates),
            "samples": .array(
                samples.map { band in
                    [
                        "above": band.lower.map { .number($0) } ?? .null,
                        "up_to": band.upper.map { .number($0) } ?? .null, "tokens": .integer(band.count),
                        "activations": .array(band.activations.map { $0.json() }),
                    ]
                }),
            "explanations": .array(
                explanations.map {
                    [
                        "text": .string($0.text), "prompt": .string($0.prompt),
                        "credible": .bool($0.isCredible),
                    ]
                }),
            "neighbours": .array(
                neighbours.map {
                    [
                        "expert": .string($0.expert.description),
                        "shares": .string($0.sharesLeft ? "left" : "right"), "mean": .number($0.mean),
                        "frequency": .number($0.frequency),
                    ]
                }),
            "logit_effects": logitEffects.map { $0.json() } ?? .null,
        ]
    }
}

extension LogitEffects {
    /// The effects as JSON.
    public func json() -> JSONValue {
        func list(_ tokens: [Token]) -> JSONValue {
            .array(
                tokens.map {
                    [
                        "token": .string($0.text), "change": .number($0.change),
                        "log_change": .number($0.logChange),
                    ]
                })
        }
        return [
            "places": .integer(places), "promoted": list(promoted), "suppressed": list(suppressed),
        ]
    }
}

extension ExpertDossier.LabelStatistics {
    func json() -> JSONValue {
        [
            "entropy": .number(entropy), "ratio": ratio.map { .number($0) } ?? .null,
            "labels": .array(
                labels.map {
                    [
                        "label": .string($0.name), "mean": .number($0.mean),
                        "frequency": .number($0.frequency),
                    ]
                }),
        ]
    }
}

extension ExpertDossier.Activation {
    func json() -> JSONValue {
        [
            "score": .number(score), "tokens": .array(pieces.map { .string($0) }), "place": .integer(place),
            "scores": scores.map { .array($0.map { .number($0) }) } ?? .null, "token": .string(token),
            "document": .integer(document),
            "position": .integer(position), "before": .string(before), "after": .string(after),
            "labels": .array(labels.map { .string($0) }),
        ]
    }
}

extension FoundExpert {
    /// The row as JSON.
    public func json() -> JSONValue {
        [
            "expert": .string(expert.description), "value": value.map { .number($0) } ?? .null,
            "mean": .number(mean), "frequency": .number(frequency), "max": .number(max),
        ]
    }
}
