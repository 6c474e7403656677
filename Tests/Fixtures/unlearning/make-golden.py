#!/usr/bin/env python3
"""Golden values of ROUGE-L (rouge-score 0.1.2), Porter stems (NLTK) and the two-sample Kolmogorov-Smirnov test (SciPy).

    pip install rouge-score nltk scipy && python3 Tests/Fixtures/unlearning/make-golden.py
"""
import json
import os
import random
from rouge_score import rouge_scorer
from nltk.stem.porter import PorterStemmer
from scipy.stats import ks_2samp
import nltk
words="""sky skies dying news ties tied die cries caresses ponies cats feed agreed plastered bled motoring sing conflated
troubled sized hopping tanned falling hissing fizzed failing filing happy sky enjoy relational conditional rational valenci
hesitanci digitizer conformabli radicalli differentli vileli analogousli vietnamization predication operator feudalism
decisiveness hopefulness callousness formaliti sensitiviti sensibiliti triplicate formative formalize electriciti electrical
hopeful goodness revival allowance inference airliner gyroscopic adjustable defensible irritant replacement adjustment
dependent adoption homologou communism activate angulariti homologous effective bowdlerize probate rate cease controll roll
geology apologies yearly carefully syzygy yyy proceed succeed innings eat easily as is be being oed ing abcing bying spied
generalizations oscillators university universal national nationally knightly ally rally sally illegally really bully
logically wolves taxes boxes 1990s 2nd 3rds abilities ability plays played playing buyer employment cement argument""".split()
st=PorterStemmer()
rng=random.Random(3)
texts=[]
vocab="the a small big dog dogs running ran happily happy author writes written writing novels 1984 novel's Wrote café naïve über It's e.g. U.S.A. Published publications".split()
cases=[]
for stem in (True,False):
    sc=rouge_scorer.RougeScorer(["rougeL"],use_stemmer=stem)
    pairs=[("","a b"),("a b",""),("...","!!"),("The Dog runs.","the dogs, running"),("İstanbul Kelvin","istanbul k")]+[(" ".join(rng.choice(vocab) for _ in range(rng.randrange(1,14)))," ".join(rng.choice(vocab) for _ in range(rng.randrange(1,14)))) for _ in range(12)]
    for a,b in pairs:
        s=sc.score(a,b)["rougeL"]; cases.append({"stems":stem,"reference":a,"candidate":b,"precision":s.precision,"recall":s.recall,"f":s.fmeasure})
ks=[]
for n,m,sh in ((1,1,0),(3,3,0),(5,7,0.5),(40,40,0.3),(40,40,3),(30,41,1.),(200,200,1.5),(400,300,0.1),(6,4,0)):
    a=[round(rng.gauss(0,1),1 if n==6 else 6) for _ in range(n)]; b=[round(rng.gauss(sh,1),1 if n==6 else 6) for _ in range(m)]
    r=ks_2samp(a,b,method="exact"); ks.append({"first":a,"second":b,"statistic":float(r.statistic),"p":float(r.pvalue)})
a=[1.,1.,2.,2.,3.]; r=ks_2samp(a,a,method="exact"); ks.append({"first":a,"second":a,"statistic":float(r.statistic),"p":float(r.pvalue)})
json.dump({"nltk":nltk.__version__,"stems":{w:st.stem(w) for w in sorted(set(words))},"rouge":cases,"ks":ks},open(os.path.join(os.path.dirname(__file__), "golden.json"), "w"),indent=0,ensure_ascii=False)
