"""Plan, train, store, serve and export many domains in one backbone.

Every domain owns some filters, its batch norm and its classifier; everything else is shared. A
domain is given as NAME=DATASET, such as digits=mnist,size=32,rgb=true or
birds=/path/of/a/folder,size=64.
"""
