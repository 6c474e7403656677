/// The 57 subjects of MMLU (Hendrycks et al. 2021).
enum MMLUSubjects {
    /// The four groups in which the harness reports them, in its order.
    static let groups = [
        (name: "stem", subjects: stem), (name: "other", subjects: other),
        (name: "social_sciences", subjects: socialSciences), (name: "humanities", subjects: humanities),
    ]

    private static let stem = [
        "abstract_algebra", "anatomy", "astronomy", "college_biology", "college_chemistry",
        "college_computer_science", "college_mathematics", "college_physics", "computer_security",
        "conceptual_physics", "electrical_engineering", "elementary_mathematics", "high_school_biology",
        "high_school_chemistry", "high_school_computer_science", "high_school_mathematics",
        "high_school_physics", "high_school_statistics", "machine_learning",
    ]
    private static let other = [
        "business_ethics", "clinical_knowledge", "college_medicine", "global_facts", "human_aging",
        "management", "marketing", "medical_genetics", "miscellaneous", "nutrition",
        "professional_accounting", "professional_medicine", "virology",
    ]
    private static let socialSciences = [
        "econometrics", "high_school_geography", "high_school_government_and_politics",
        "high_school_macroeconomics", "high_school_microeconomics", "high_school_psychology",
        "human_sexuality", "professional_psychology", "public_relations", "security_studies", "sociology",
        "us_foreign_policy",
    ]
    private static let humanities = [
        "formal_logic", "high_school_european_history", "high_school_us_history",
        "high_school_world_history", "international_law", "jurisprudence", "logical_fallacies",
        "moral_disputes", "moral_scenarios", "philosophy", "prehistory", "professional_law",
        "world_religions",
    ]

    /// The fourteen categories of MMLU-Pro, in the order of the paper's matrix, with the subjects of MMLU that
    /// belong to each: the subcategories of the authors' repository, those that MMLU-Pro does not have (geography,
    /// politics, culture) counted to "other".
    static let categories: [(name: String, subjects: [String])] = [
        ("biology", ["college_biology", "high_school_biology"]),
        ("business", ["business_ethics", "management", "marketing"]),
        ("chemistry", ["college_chemistry", "high_school_chemistry"]),
        (
            "computer science",
            [
                "college_computer_science", "computer_security", "high_school_computer_science",
                "machine_learning",
            ]
        ),
        ("economics", ["econometrics", "high_school_macroeconomics", "high_school_microeconomics"]),
        ("engineering", ["electrical_engineering"]),
        (
            "health",
            [
                "anatomy", "clinical_knowledge", "college_medicine", "human_aging", "medical_genetics",
                "nutrition", "professional_medicine", "virology",
            ]
        ),
        (
            "history",
            [
                "high_school_european_history", "high_school_us_history", "high_school_world_history",
                "prehistory",
            ]
        ),
        ("law", ["international_law", "jurisprudence", "professional_law"]),
        (
            "math",
            [
                "abstract_algebra", "college_mathematics", "elementary_mathematics",
                "high_school_mathematics", "high_school_statistics",
            ]
        ),
        (
            "philosophy",
            [
                "formal_logic", "logical_fallacies", "moral_disputes", "moral_scenarios", "philosophy",
                "world_religions",
            ]
        ),
        ("physics", ["astronomy", "college_physics", "conceptual_physics", "high_school_physics"]),
        ("psychology", ["high_school_psychology", "professional_psychology"]),
        (
            "other",
            [
                "global_facts", "high_school_geography", "high_school_government_and_politics",
                "human_sexuality", "miscellaneous", "professional_accounting", "public_relations",
                "security_studies", "sociology", "us_foreign_policy",
            ]
        ),
    ]
}
