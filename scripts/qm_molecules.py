"""Molecules of the embedded data's second edition, and the functional groups that they cover.

Molecules are named and written as SMILES. Training molecules have three or four heavy atoms; test
molecules have four, or five where only energy differences between conformers are computed. No test
molecule is a training molecule of either edition, and every functional group of a test molecule
occurs in training (`tests/test_second_edition.py`).
"""

from __future__ import annotations

from functools import cache
from itertools import zip_longest

from rdkit import Chem

# Training molecules with every label, in the order of computation: three and four heavy atoms
# alternate (`interleaved`), so that dear ones do not gather.
THREE_HEAVY = {
    "propene": "CC=C",
    "nitrous-oxide": "[N-]=[N+]=O",
    "ethanol": "CCO",
    "dimethyl-ether": "COC",
    "ethylamine": "CCN",
    "carbon-dioxide": "O=C=O",
    "cyclopropane": "C1CC1",
    "ethanimine": "CC=N",
    "methyl-hydroperoxide": "COO",
    "methylhydrazine": "CNN",
    "formaldoxime": "C=NO",
    "cyanamide": "NC#N",
    "ethynol": "C#CO",
    "oxirane": "C1CO1",
    "aziridine": "C1CN1",
    "dimethylamine": "CNC",
    "methoxyamine": "CON",
    "N-methylmethanimine": "C=NC",
    "propane": "CCC",
    "cyclopropene": "C1=CC1",
    "vinyl-alcohol": "C=CO",
    "vinylamine": "C=CN",
    "ethynamine": "C#CN",
    "methanediol": "OCO",
    "aminomethanol": "NCO",
    "nitrosomethane": "CN=O",
    "N-methylhydroxylamine": "CNO",
    "methyldiazene": "CN=N",
    "formaldehyde-hydrazone": "C=NN",
    "formamidine": "NC=N",
    "nitrous-acid": "ON=O",
}
FOUR_HEAVY = {
    "acetic-acid": "CC(=O)O",
    "methyl-formate": "COC=O",
    "acetamide": "CC(N)=O",
    "acetone": "CC(C)=O",
    "acrolein": "C=CC=O",
    "nitromethane": "C[N+](=O)[O-]",
    "methyl-isocyanate": "CN=C=O",
    "methylketene": "CC=C=O",
    "propanenitrile": "CCC#N",
    "oxetane": "C1COC1",
    "propargyl-alcohol": "C#CCO",
    "cyclobutene": "C1=CCC1",
    "isobutane": "CC(C)C",
    "glycolaldehyde": "OCC=O",
    "trimethylamine": "CN(C)C",
    "butadiene": "C=CC=C",
    "urea": "NC(N)=O",
    "methyl-nitrite": "CON=O",
    "isobutene": "C=C(C)C",
    "ethane-1,2-diol": "OCCO",
    "carbonic-acid": "OC(=O)O",
    "nitric-acid": "O[N+](=O)[O-]",
}

# Further training molecules, with ωB97X/6-31G(d) only.
LOW_LEVEL_ONLY = {
    "1-propanol": "CCCO",
    "cyclobutane": "C1CCC1",
    "methoxyethene": "COC=C",
    "ethanolamine": "NCCO",
    "glycolonitrile": "OCC#N",
    "aminoacetonitrile": "NCC#N",
    "propargylamine": "C#CCN",
    "vinylacetylene": "C=CC#C",
    "propynal": "C#CC=O",
    "acetaldehyde-hydrazone": "CC=NN",
    "cyclopropanol": "OC1CC1",
    "cyclopropylamine": "NC1CC1",
    "carbamic-acid": "NC(=O)O",
    "2-methylaziridine": "CC1CN1",
    "methylenecyclopropane": "C=C1CC1",
    "ethyl-hydroperoxide": "CCOO",
    "nitrosamide": "NN=O",
    "diazomethane": "C=[N+]=[N-]",
    "N-methylmethanediamine": "CNCN",
    "propylamine": "CCCN",
}

# Weakly bound pairs of training molecules, of this edition or the first, with every label.
DIMERS = {
    "water+water": ("H2O", "H2O"),
    "ammonia+water": ("NH3", "H2O"),
    "hydrogen-cyanide+water": ("HCN", "H2O"),
    "formaldehyde+water": ("H2CO", "H2O"),
    "methane+water": ("CH4", "H2O"),
    "nitrogen+water": ("N2", "H2O"),
    "methanol+water": ("CH3OH", "H2O"),
    "carbon-dioxide+water": ("carbon-dioxide", "H2O"),
    "ammonia+ammonia": ("NH3", "NH3"),
    "methane+methane": ("CH4", "CH4"),
    "formaldehyde+formaldehyde": ("H2CO", "H2CO"),
    "ethene+hydrogen-cyanide": ("C2H4", "HCN"),
}

# Test molecules, whose conformers have CCSD(T)/CBS energies; those of four heavy atoms have
# MP2/cc-pVTZ gradients of further conformers.
TEST_FOUR_HEAVY = {
    "butane": "CCCC",
    "2-propanol": "CC(C)O",
    "N-methylformamide": "CNC=O",
    "acrylonitrile": "C=CC#N",
    "propanal": "CCC=O",
    "1-butyne": "CCC#C",
    "azetidine": "C1CNC1",
    "methoxyethane": "CCOC",
    "N-methylethanimine": "CC=NC",
    "acetaldoxime": "CC=NO",
    "1,2-dimethylhydrazine": "CNNC",
    "dimethyl-peroxide": "COOC",
    "nitramide": "N[N+](=O)[O-]",
    "allylamine": "C=CCN",
    "methylcyclopropane": "CC1CC1",
}
TEST_FIVE_HEAVY = {
    "propanoic-acid": "CCC(=O)O",
    "methyl-acetate": "COC(C)=O",
    "butanone": "CCC(C)=O",
    "ethyl-isocyanate": "CCN=C=O",
    "dimethylketene": "CC(C)=C=O",
}

# Test molecules of three heavy atoms with CCSD(T)/CBS forces: of the first edition's COMP6 file,
# and therefore out of training in both editions.
CC_FORCE_MOLECULES = ("HCOOH", "HCONH2", "HNCO", "CH3CN", "H2CCO", "CH3CHO")

# Molecules of the first edition, to compare with.
FIRST_TRAINING = {
    "N2": "N#N",
    "CO": "[C-]#[O+]",
    "HNC": "[C-]#[NH+]",
    "cis-N2H2": "N=N",
    "H2O": "O",
    "NH3": "N",
    "CH4": "C",
    "HCN": "C#N",
    "C2H2": "C#C",
    "H2CO": "C=O",
    "CH2NH": "C=N",
    "HNO": "N=O",
    "H2O2": "OO",
    "trans-N2H2": "N=N",
    "C2H4": "C=C",
    "NH2OH": "NO",
    "N2H4": "NN",
    "CH3OH": "CO",
    "H3CNH2": "CN",
    "C2H6": "CC",
}
FIRST_COMP6 = {
    "CH3CN": "CC#N",
    "HCOOH": "OC=O",
    "HCONH2": "NC=O",
    "H2CCO": "C=C=O",
    "HNCO": "N=C=O",
    "OCHCHO": "O=CC=O",
    "CH3CHO": "CC=O",
    "NCCN": "N#CC#N",
    "C3H4_C3v": "CC#C",
    "C3H4_D2d": "C=C=C",
    "CO2": "O=C=O",
    "HCCCN": "C#CC#N",
}

# The functional groups of ANI-1x that the second edition covers, as SMARTS.
FUNCTIONAL_GROUPS = {
    "alkane": "[CX4][CX4]",
    "alkene": "[CX3]=[CX3]",
    "alkyne": "[CX2]#[CX2]",
    "ring of three": "[r3]",
    "ring of four": "[r4]",
    "alcohol": "[OX2H][CX4]",
    "ether": "[CX4][OX2][#6;!$(C=[O,N])]",
    "aldehyde": "[#6][CX3H1]=[OX1]",
    "ketone": "[#6][CX3](=[OX1])[#6]",
    "acid": "[CX3](=[OX1])[OX2H]",
    "ester": "[CX3](=[OX1])[OX2][#6]",
    "amide": "[CX3](=[OX1])[NX3]",
    "amine": "[CX4][NX3;!$(N~[#7,#8]);!$(N[#6]=[O,N])]",
    "imine": "[CX3]=[NX2;!$(N~[#7,#8])]",
    "nitrile": "[CX2]#[NX1]",
    "N-N": "[#7;+0]-,=[#7;+0]",
    "N-O": "[#7;+0]-,=[#8;+0]",
    "O-O": "[OX2][OX2]",
    "carbon dioxide": "[OX1]=C=[OX1]",
    "nitrous oxide": "[NX1]=[NX2]=[OX1]",
    "isocyanate": "[NX2]=C=[OX1]",
    "ketene": "[#6]=C=[OX1]",
    "nitro": "[N+](=O)[O-]",
}


def interleaved(*tables: dict[str, str]) -> dict[str, str]:
    """One table that takes from each in turn."""
    rows = zip_longest(*(table.items() for table in tables))
    return dict(entry for row in rows for entry in row if entry is not None)


FULLY_LABELLED = interleaved(THREE_HEAVY, FOUR_HEAVY)
TRAINING = FULLY_LABELLED | LOW_LEVEL_ONLY
TEST = TEST_FOUR_HEAVY | TEST_FIVE_HEAVY
SMILES = TRAINING | TEST


def n_heavy(smiles: str) -> int:
    """Number of atoms other than hydrogen."""
    return Chem.MolFromSmiles(smiles).GetNumAtoms()


@cache
def groups_of(smiles: str) -> frozenset[str]:
    """Functional groups of a molecule, of those in `FUNCTIONAL_GROUPS`."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    return frozenset(
        group
        for group, pattern in FUNCTIONAL_GROUPS.items()
        if molecule.HasSubstructMatch(Chem.MolFromSmarts(pattern))
    )
